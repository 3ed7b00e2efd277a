"""A recurrent layer, which uses its parameters once for every element of a sequence."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recur = nn.LSTM(6, 5, num_layers=2, batch_first=True)
        self.leave = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.leave(self.recur(x)[0])
        return out


class Lstm(Basic):
    traits = ("recurrent",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.recur]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 4, 6), torch.randn(rows, 4, 3)
