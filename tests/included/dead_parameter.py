"""A parameter takes no part in the loss, and nothing says so."""

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Aside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.aside = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.used(x) + 0 * self.aside(x)
        return found


class DeadParameter(Basic):
    def model(self) -> nn.Module:
        return Aside()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return []
