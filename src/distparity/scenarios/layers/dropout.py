"""Dropout: every row has its own random numbers, whichever rank it is on.

Ranks seed their generators differently, or every rank would drop the same. Here a row brings its
seed along, so that one process can draw the same masks for the whole batch.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class RowDropout(nn.Module):
    def forward(self, x: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        kept = []
        with torch.random.fork_rng(devices=[]):
            for seed in seeds.tolist():
                torch.manual_seed(seed)
                # On the CPU, because every device has its own generator.
                kept.append(F.dropout(torch.ones(x.shape[1], dtype=torch.float64), 0.25))
        return x * torch.stack(kept).to(x)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 16)
        self.drop = RowDropout()
        self.outer = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(self.drop(torch.tanh(self.inner(x)), seeds))
        return out


class Dropout(Basic):
    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.inner]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 6), torch.randint(10**6, (rows,)), torch.randn(rows, 3)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, seeds, target = batch
        return F.mse_loss(model(x, seeds), target)
