"""Units compute in bfloat16, and gradients of micro-batches add up in float32 before the exchange."""

from distparity.scenarios.precision.mixed_bfloat16 import MixedBfloat16


class AccumulationMixed(MixedBfloat16):
    rows_per_rank = 6
    micro_batches = 3
