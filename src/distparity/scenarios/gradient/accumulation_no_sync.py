"""Gradients of several micro-batches add up locally, and are exchanged once, with the last."""

from distparity.scenarios.calls.basic import Basic


class AccumulationNoSync(Basic):
    anchor = True
    rows_per_rank = 6
    micro_batches = 3
