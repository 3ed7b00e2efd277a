"""Parameters that belong to the model itself and to no layer, with three dimensions and more."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(5, 6, 2))
        self.deep = nn.Parameter(torch.randn(3, 5, 2, 1, 2) / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(torch.einsum("bi,jik->bjk", x, self.mix))
        return torch.einsum("bjk,ojklk->bo", x, self.deep)


class PlainParameters(Basic):
    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return []
