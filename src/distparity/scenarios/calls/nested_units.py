"""Units inside units, three deep: each level has parameters of its own."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Level(nn.Module):
    """A linear layer around another level."""

    def __init__(self, width: int, inside: nn.Module) -> None:
        super().__init__()
        self.down = nn.Linear(6, width)
        self.up = nn.Linear(width, 6)
        self.inside = inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.inside(self.up(torch.tanh(self.down(x))))
        return out


class NestedUnits(Basic):
    def model(self) -> nn.Module:
        return nn.Sequential(Level(8, Level(5, Level(7, nn.Tanh()))), nn.Linear(6, 3))

    def units(self, model: nn.Module) -> list[nn.Module]:
        levels: list[nn.Module] = [one for one in model.modules() if isinstance(one, Level)]
        return levels[::-1]
