"""Gradients of several micro-batches add up, and are exchanged with each of them."""

from distparity.scenarios.calls.basic import Basic


class AccumulationSync(Basic):
    anchor = True
    rows_per_rank = 6
    micro_batches = 3
    exchange_last_only = False
