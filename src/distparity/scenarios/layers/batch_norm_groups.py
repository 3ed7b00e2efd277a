"""Batch normalisation that trains, over groups of as many rows as a rank has.

So without an exchange between ranks, one process can compute the same.
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
        # Without a bias, because batch normalisation subtracts it with the mean.
        self.enter = nn.Linear(6, 8, bias=False)
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)
        self.leave = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        normed = torch.zeros_like(x)
        for number in group.unique():
            rows = group == number
            normed = normed.masked_scatter(rows[:, None], self.norm(x[rows]))
        out: torch.Tensor = self.leave(torch.tanh(normed))
        return out


class BatchNormGroups(Basic):
    # Micro-batches would split a group.
    divisible = False

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.enter]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        group = torch.arange(rows) // self.rows_per_rank
        return torch.randn(rows, 6), group, torch.randn(rows, 3)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, group, target = batch
        return F.mse_loss(model(x, group), target)
