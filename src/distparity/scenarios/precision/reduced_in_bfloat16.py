"""Everything is float32, except that gradients are reduced in bfloat16."""

from distparity.scenarios.precision.mixed_bfloat16 import MixedBfloat16
from distparity.torch_support.precision import Precision


class ReducedInBfloat16(MixedBfloat16):
    precision = Precision(reduces_in="bfloat16")
