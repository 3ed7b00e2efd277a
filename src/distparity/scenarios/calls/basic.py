"""Plain training: a small perceptron with smooth activations, regression, SGD with momentum.

Smooth, because a kink (ReLU) can turn a difference of one rounding into one of the whole gradient.
Widths are chosen so that some parameters divide by 2 and 4 and some do not.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario


class Basic(Scenario):
    anchor = True

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)
        )

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0], model[2]]  # type: ignore[index]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 6), torch.randn(rows, 3)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        return F.mse_loss(model(x), target)
