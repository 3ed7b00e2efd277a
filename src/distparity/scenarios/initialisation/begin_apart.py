"""Every rank but the first begins with other parameters and buffers.

A wrapper that promises to begin with rank 0's must put that right. The buffer takes part in every
forward, so that a rank that kept its own computes something else.
"""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.outer = nn.Linear(8, 3)
        self.scale: torch.Tensor
        self.serial: torch.Tensor
        self.register_buffer("scale", torch.rand(8) + 0.5)
        self.register_buffer("serial", torch.arange(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.tanh(self.inner(x)) * self.scale)
        return out


class BeginApart(Basic):
    anchor = True
    ranks_begin_apart = True

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.inner]  # type: ignore[list-item]
