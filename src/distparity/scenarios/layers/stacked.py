"""A stack of eight layers that can be cut anywhere between two of them."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # With a residual connection, so that gradients reach the first layer too.
        return x + torch.tanh(self.linear(x))


class Stacked(Basic):
    stages = tuple((str(number),) for number in range(8))

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 5), *(Layer() for _ in range(6)), nn.Linear(5, 3))

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[2], model[5]]  # type: ignore[index]
