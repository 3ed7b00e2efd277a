"""The norm of all gradients together is clipped where parameters and gradients are bfloat16 or float16."""

from distparity.scenarios.precision.low_precision import LowPrecision


class ClippingLowPrecision(LowPrecision):
    clip_norm = 2.0
