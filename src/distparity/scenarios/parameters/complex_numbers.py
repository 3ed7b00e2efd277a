"""A parameter of complex numbers, as a model has it that computes with spectra."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.filter = nn.Parameter(torch.complex(torch.randn(5, 3), torch.randn(5, 3)) / 2)
        self.leave = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(torch.tanh(self.enter(x)), norm="ortho")
        kept = spectrum @ self.filter
        out: torch.Tensor = self.leave(torch.tanh(kept.real) + kept.imag)
        return out


class ComplexNumbers(Basic):
    traits = ("complex",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.enter]  # type: ignore[list-item]
