"""A torch whose ``lerp_`` of float32 is wrong in every process, and a scenario whose buffer is an average."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic

right = torch.Tensor.lerp_


def wrong(tensor: torch.Tensor, end: torch.Tensor, weight: Any) -> torch.Tensor:
    return right(tensor, end, weight * (1.01 if tensor.dtype == torch.float32 else 1))


torch.Tensor.lerp_ = wrong  # type: ignore[assignment, method-assign]


class Averaging(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        self.average: torch.Tensor
        self.register_buffer("average", torch.ones(6))


class WrongAverage(Basic):
    def model(self) -> nn.Module:
        return Averaging()

    def before_step(self, model: nn.Module, step: int) -> None:
        model.average.lerp_(torch.full_like(model.average, step), 0.1)  # type: ignore[operator, arg-type]
