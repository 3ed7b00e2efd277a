"""A unit has parameters of two dtypes: a layer that is computed in float64 among others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Linear(6, 8)
        self.fine = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.coarse(x))
        return torch.tanh(self.fine(y.to(self.fine.weight.dtype))).to(x.dtype)


class SeveralDtypes(Basic):
    dtypes = ("float32",)
    other_dtypes: ClassVar[Mapping[str, str]] = {"0.fine": "float64"}

    def model(self) -> nn.Module:
        return nn.Sequential(Unit(), nn.Linear(8, 3))

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0]]  # type: ignore[index]
