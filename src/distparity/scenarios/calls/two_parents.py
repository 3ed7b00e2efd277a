"""One unit belongs to two parents, and runs inside both in a forward.

It is one module with one set of parameters: it must be wrapped once, gathered for each parent, and
its gradient is the sum over both.
"""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Parent(nn.Module):
    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.own = nn.Linear(8, 8)
        self.shared = shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.shared(torch.tanh(self.own(x))))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(8, 8)
        self.enter = nn.Linear(6, 8)
        self.left = Parent(shared)
        self.right = Parent(shared)
        self.leave = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.enter(x))
        out: torch.Tensor = self.leave(self.left(x) + self.right(x))
        return out


class TwoParents(Basic):
    traits = ("two_parents",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.left.shared, model.left, model.right]  # type: ignore[union-attr,list-item]
