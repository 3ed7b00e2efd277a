"""A parameter whose strides are not those of its shape: a transposed weight."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.turned = nn.Parameter(torch.randn(3, 8).t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(x)) @ self.turned


class NonContiguous(Basic):
    traits = ("non_contiguous",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.inner]  # type: ignore[list-item]
