"""The optimizer's step is one fused kernel.

An ``eps`` that is not tiny, so that a gradient near nothing is not blown up to a whole step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from distparity.scenarios.calls.basic import Basic


class Fused(Basic):
    steps = 4
    traits = ("fused",)

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=0.05, eps=1e-3, fused=True)
