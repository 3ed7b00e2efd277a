"""Micro-batches of different sizes, each weighted by its number of rows."""

from distparity.scenarios.calls.basic import Basic


class UnevenMicroBatches(Basic):
    rows_per_rank = 7
    micro_batches = 2
