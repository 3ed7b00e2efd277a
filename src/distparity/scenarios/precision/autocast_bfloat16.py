"""The forward runs under autocast to bfloat16; parameters and gradients are float32."""

from distparity.scenarios.precision.mixed_bfloat16 import MixedBfloat16


class AutocastBfloat16(MixedBfloat16):
    precision = None
    autocast = "bfloat16"
