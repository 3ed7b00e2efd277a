"""Buffers of several dtypes that change between steps, and take part in every forward.

They change by the user's own hand, alike on every rank: what a wrapper copies, casts or broadcasts
must leave them as they are.
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
        self.turns: torch.Tensor
        self.keep: torch.Tensor
        self.register_buffer("scale", torch.rand(8) + 0.5)
        self.register_buffer("turns", torch.zeros((), dtype=torch.int64))
        self.register_buffer("keep", torch.arange(8) < 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.inner(x)) * self.scale / (1 + self.turns)
        out: torch.Tensor = self.outer(torch.where(self.keep, x, 0.5 * x))
        return out


class Buffers(Basic):
    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.inner]  # type: ignore[list-item]

    def before_step(self, model: nn.Module, step: int) -> None:
        assert isinstance(model, Model)
        model.scale.mul_(0.75)
        model.turns.add_(1)
        model.keep.logical_not_()
