"""A unit is left out of some steps, on all ranks alike.

It is not gathered, has no gradient, and the optimizer leaves it and its momentum alone; in the next
step it takes part again.
"""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.middle = nn.Linear(8, 8)
        self.leave = nn.Linear(8, 3)
        self.skip = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.enter(x))
        if not self.skip:
            x = x + torch.tanh(self.middle(x))
        out: torch.Tensor = self.leave(x)
        return out


class SkippedUnit(Basic):
    steps = 5
    traits = ("unused_parameters",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.middle]  # type: ignore[list-item]

    def before_step(self, model: nn.Module, step: int) -> None:
        model.skip = self.skips(step)  # type: ignore[assignment]

    def idle(self, step: int) -> list[str]:
        return ["middle.weight", "middle.bias"] if self.skips(step) else []

    def skips(self, step: int) -> bool:
        return step % 3 == 1
