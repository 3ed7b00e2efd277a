"""A scenario in which nothing is compared: its gradients are zero."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios import Batch, Scenario


class Dead(Scenario):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def batch(self, rows: int) -> Batch:
        return (torch.randn(rows, 4),)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = (model(batch[0]) * 0).mean()
        return loss
