"""Micro-batches of different sizes: each weighs as much as it has rows."""

from distparity.scenarios.calls.basic import Basic


class UnevenMicroBatches(Basic):
    rows_per_rank = 7
    micro_batches = 2
