"""In one step the gradient of a single row overflows: every rank must skip that step.

The row is on one rank. The loss itself stays finite; the ``GradScaler`` halves its scale, and
parameters and momentum are as if there had been no such step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class Overflow(torch.autograd.Function):
    """The identity; the gradient of marked rows is infinite."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, marked: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(marked)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (marked,) = ctx.saved_tensors
        return torch.where(marked[:, None], torch.inf, grad[0]), None


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.outer = nn.Linear(8, 3)
        self.overflows = False

    def forward(self, x: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.tanh(self.inner(x)))
        return Overflow.apply(out, number == 0) if self.overflows else out  # type: ignore[no-untyped-call]


class OverflowStep(Basic):
    steps = 4
    loss_scale = 1024.0
    traits = ("overflow",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.inner]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 6), torch.arange(rows), torch.randn(rows, 3)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, number, target = batch
        error: torch.Tensor = model(x, number) - target
        return error.square().mean()

    def before_step(self, model: nn.Module, step: int) -> None:
        model.overflows = step == 1  # type: ignore[assignment]

    def idle(self, step: int) -> list[str]:
        names = [f"{unit}.{kind}" for unit in ("inner", "outer") for kind in ("weight", "bias")]
        return names if step == 1 else []
