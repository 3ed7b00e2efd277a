"""All gradients together are clipped by their largest element, and no shard is empty."""

import math

from distparity.scenarios.parameters.even_shards import EvenShards


class ClippingByLargestEven(EvenShards):
    clip_norm = 0.01
    clip_kind = math.inf
