"""All gradients together are clipped by the sum of their absolute values (the 1-norm).

Some shards are empty: they have no part in the norm, and must not spoil it.
"""

from distparity.scenarios.parameters.small_shards import SmallShards


class ClippingBySum(SmallShards):
    clip_norm = 0.2
    clip_kind = 1.0
