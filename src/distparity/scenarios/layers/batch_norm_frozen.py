"""Batch normalisation with frozen statistics, as in fine-tuning: only its scale and shift train."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class BatchNormFrozen(Basic):
    def model(self) -> nn.Module:
        norm = nn.BatchNorm1d(8)
        norm.running_mean = torch.randn(8)
        norm.running_var = torch.rand(8) + 0.5
        return nn.Sequential(nn.Linear(6, 8), norm.eval(), nn.Tanh(), nn.Linear(8, 3))

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0], model[1]]  # type: ignore[index]
