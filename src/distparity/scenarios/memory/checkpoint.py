"""Activations are not kept but computed again in the backward, by non-reentrant checkpoints.

A unit is called twice in a forward: each call is done again, and finds its parameters gathered.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from distparity.scenarios.calls.multiple_forward import MultipleForward


class Model(nn.Module):
    reentrant = False

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.outer = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once = self._again(x)
        twice = self._again(once)
        out: torch.Tensor = self.outer(once + twice)
        return out

    def _again(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = checkpoint(self._part, x, use_reentrant=self.reentrant)
        return out

    def _part(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(x))


class Checkpoint(MultipleForward):
    traits: ClassVar[tuple[str, ...]] = ("twice", "recomputed")

    def model(self) -> nn.Module:
        return Model()
