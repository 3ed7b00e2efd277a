"""Everything is float32 but what travels: gradients are reduced in bfloat16."""

from distparity.precision import Precision
from distparity.scenarios.precision.mixed_bfloat16 import MixedBfloat16


class ReducedInBfloat16(MixedBfloat16):
    precision = Precision(reduces_in="bfloat16")
