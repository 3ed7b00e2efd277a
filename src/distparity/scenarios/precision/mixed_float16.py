"""Units compute in float16 with float32 parameters, and reduce gradients in float32."""

from distparity.scenarios.precision.mixed_bfloat16 import MixedBfloat16
from distparity.torch_support.precision import Precision


class MixedFloat16(MixedBfloat16):
    precision = Precision(computes_in="float16", reduces_in="float32")
