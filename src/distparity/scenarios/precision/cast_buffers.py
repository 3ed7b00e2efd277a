"""Units compute in bfloat16, and so do buffers: they are cast in the first forward, and stay so."""

from distparity.scenarios.precision.mixed_buffers import MixedBuffers
from distparity.torch_support.precision import Precision


class CastBuffers(MixedBuffers):
    precision = Precision(computes_in="bfloat16", reduces_in="float32", buffers_in="bfloat16")
