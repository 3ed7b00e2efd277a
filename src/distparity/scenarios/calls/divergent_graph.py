"""Each rank's rows go through one of two layers, so that ranks use different parameters.

The layer that a rank does not use contributes nothing there, and the mean is over all ranks.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.even = nn.Linear(8, 8)
        self.odd = nn.Linear(8, 8)
        self.leave = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, way: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.enter(x))
        mixed = torch.zeros_like(x)
        for number, layer in enumerate((self.even, self.odd)):
            chosen = way == number
            if chosen.any():
                mixed = mixed.masked_scatter(chosen[:, None], layer(x[chosen]))
        out: torch.Tensor = self.leave(torch.tanh(mixed))
        return out


class DivergentGraph(Basic):
    traits = ("unused_on_some_ranks",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return []

    def batch(self, rows: int) -> Batch:
        way = torch.arange(rows) // self.rows_per_rank % 2
        return torch.randn(rows, 6), way, torch.randn(rows, 3)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, way, target = batch
        return F.mse_loss(model(x, way), target)
