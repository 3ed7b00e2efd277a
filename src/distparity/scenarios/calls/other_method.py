"""The loss calls a method of the model that is not ``forward``."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.outer = nn.Linear(8, 3)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.tanh(self.inner(x)))
        return out


class OtherMethod(Basic):
    methods = ("encode",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.inner]  # type: ignore[list-item]

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        error: torch.Tensor = model.encode(x) - target  # type: ignore[operator]
        return error.square().mean()
