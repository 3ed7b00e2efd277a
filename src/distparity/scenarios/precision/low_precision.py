"""Parameters, data and gradients are bfloat16 or float16 throughout.

The steps are large: a small one is lost where it is added to a parameter. Rows pull in one direction
more than in others, so that gradients stay above what is rounded off their terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class LowPrecision(Basic):
    steps = 2
    dtypes = ("bfloat16", "float16")

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 6), 2 + 3 * torch.randn(rows, 3)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        # Not ``mse_loss``, which early releases do not support in bfloat16 on a CPU.
        error: torch.Tensor = model(x) - target
        return error.square().mean()

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.25, momentum=0.5)
