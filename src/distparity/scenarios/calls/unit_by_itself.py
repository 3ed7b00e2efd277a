"""A unit is called inside the model, and once more by itself, after the model's own forward."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.middle = nn.Linear(8, 8)
        self.leave = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.enter(x))
        out: torch.Tensor = self.leave(torch.tanh(self.middle(x)))
        return out


class UnitByItself(Basic):
    traits = ("unit_by_itself",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.enter, model.middle]  # type: ignore[list-item]

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        loss = super().loss(model, batch)
        aside: torch.Tensor = model.enter(batch[0])  # type: ignore[operator]
        return loss + aside.square().mean()
