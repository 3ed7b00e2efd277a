"""Parameters with fewer rows than there are ranks, and with one element: most shards are empty."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.gain = nn.Parameter(torch.rand(1) + 0.5)
        self.outer = nn.Linear(3, 1)
        self.tail = nn.Parameter(torch.randn(1, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.tanh(self.inner(x)) * self.gain) + self.tail
        return out


class SmallShards(Basic):
    traits = ("empty_shards",)

    def model(self) -> nn.Module:
        return Model()

    def batch(self, rows: int) -> Batch:
        x, target = super().batch(rows)
        # Small, so that the single factor is pulled one way by all rows, and not hither and thither.
        return x, target / 4

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.inner, model.outer]  # type: ignore[list-item]
