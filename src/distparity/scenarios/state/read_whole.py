"""Whole parameters are read between steps, and their values decide what the next forward does."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.outer = nn.Linear(8, 3)
        self.gain = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.tanh(self.inner(x)) * self.gain)
        return out


class ReadWhole(Basic):
    whole_parameters = "read"

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.inner]  # type: ignore[list-item]

    def before_step(self, model: nn.Module, step: int) -> None:
        assert isinstance(model, Model)
        # The largest sum of a column, over all its rows.
        norms = [layer.weight.abs().sum(0).max() for layer in (model.inner, model.outer)]
        model.gain = 2 / float(norms[0] + norms[1])
