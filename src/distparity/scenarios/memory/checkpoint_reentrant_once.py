"""Activations are computed again by a backward within the backward, of units that are called once."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from distparity.scenarios.memory.checkpoint_reentrant import CheckpointReentrant


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 7)
        self.last = nn.Linear(7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in (self.first, self.second):
            x = torch.tanh(checkpoint(part, x, use_reentrant=True))
        out: torch.Tensor = self.last(x)
        return out


class CheckpointReentrantOnce(CheckpointReentrant):
    traits = ("recomputed",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.first, model.second]  # type: ignore[list-item]
