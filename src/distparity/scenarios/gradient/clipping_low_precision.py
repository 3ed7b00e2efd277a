"""The norm of all gradients together is clipped where parameters and gradients are bfloat16 or float16."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from distparity.scenarios.precision.low_precision import LowPrecision


class ClippingLowPrecision(LowPrecision):
    clip_norm = 2.0

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.3, momentum=0.5)
