"""An embedding and a loss over classes: rows that a rank does not see have a zero gradient there."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario


class Embedding(Scenario):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(5, 6), nn.Tanh(), nn.Linear(6, 7))

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0]]  # type: ignore[index]

    def batch(self, rows: int) -> Batch:
        return torch.randint(5, (rows, 3)), torch.randint(7, (rows, 3))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        tokens, target = batch
        return F.cross_entropy(model(tokens).flatten(0, 1), target.flatten())
