"""A unit has two layers, one of which is never used: only a part of the unit has a gradient."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(6, 8)
        self.spare = nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.used(x))


class UnusedInUnit(Basic):
    traits = ("unused_parameters", "unused_in_unit")

    def model(self) -> nn.Module:
        return nn.Sequential(Half(), nn.Linear(8, 3))

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0]]  # type: ignore[index]

    def idle(self, step: int) -> list[str]:
        return ["0.spare.weight", "0.spare.bias"]
