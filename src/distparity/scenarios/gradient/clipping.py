"""The norm of all gradients together is clipped before the step.

The norm is over all parameters on all ranks: a rank that takes its own shard's for it scales by
another factor. The limit is below every norm that occurs, so that every step is clipped.
"""

from distparity.scenarios.calls.basic import Basic


class Clipping(Basic):
    anchor = True
    clip_norm = 0.05
