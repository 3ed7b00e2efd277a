"""Units compute in bfloat16, and so do buffers: they are cast in the first forward, and stay so."""

from distparity.precision import Precision
from distparity.scenarios.precision.mixed_buffers import MixedBuffers


class CastBuffers(MixedBuffers):
    precision = Precision(computes_in="bfloat16", reduces_in="float32", buffers_in="bfloat16")
