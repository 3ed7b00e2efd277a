"""One weight is used twice inside a unit: at its input, and transposed at its output."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 6)
        self.leave = nn.Linear(6, 6)
        self.leave.weight = self.enter.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.leave(torch.tanh(self.enter(x))))


class TiedInUnit(Basic):
    traits = ("tied",)

    def model(self) -> nn.Module:
        return nn.Sequential(Tied(), nn.Linear(6, 3))

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0]]  # type: ignore[index]
