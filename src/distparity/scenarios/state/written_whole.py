"""Whole parameters are written between steps: every column of a weight is scaled to norm 1."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class WrittenWhole(Basic):
    whole_parameters = "write"

    def before_step(self, model: nn.Module, step: int) -> None:
        weight: torch.Tensor = model[2].weight  # type: ignore[index]
        with torch.no_grad():
            weight.div_(weight.norm(dim=0, keepdim=True))
