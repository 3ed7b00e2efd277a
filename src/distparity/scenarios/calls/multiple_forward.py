"""One unit is called twice in a single forward.

Its gradient is the sum of two contributions, and a sharding strategy must gather it again for the
second call and reduce it once. PyTorch's own test of this is ``test_fsdp_multiple_forward.py``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        # Five rows divide by neither 2 nor 4: the last shard is short, or empty.
        self.outer = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once = torch.tanh(self.inner(x))
        twice = torch.tanh(self.inner(once))
        out: torch.Tensor = self.outer(once + twice)
        return out


class MultipleForward(Scenario):
    anchor = True
    traits: ClassVar[tuple[str, ...]] = ("twice",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.inner]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 8), torch.randn(rows, 5)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        return F.mse_loss(model(x), target)
