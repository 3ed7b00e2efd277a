"""A unit with a complex parameter, as in a model that filters spectra."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Filter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.complex(torch.randn(5, 3), torch.randn(5, 3)) / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        passed = torch.fft.rfft(x, norm="ortho") @ self.weight
        out: torch.Tensor = torch.tanh(passed.real) + passed.imag
        return out


class ComplexNumbers(Basic):
    traits = ("complex",)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Filter(), nn.Linear(3, 3))

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0], model[2]]  # type: ignore[index]
