"""Units compute in bfloat16, and gradients are reduced in bfloat16 as well."""

from distparity.scenarios.precision.mixed_bfloat16 import MixedBfloat16
from distparity.torch_support.precision import Precision


class MixedBfloat16Reduced(MixedBfloat16):
    precision = Precision(computes_in="bfloat16", reduces_in="bfloat16")
