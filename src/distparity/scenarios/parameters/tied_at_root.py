"""An embedding and the head of a model share their weight, and belong to no unit but the root."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.block = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.block(self.embedding(tokens))))
        return out


class TiedAtRoot(Scenario):
    traits = ("tied",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.block]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        return torch.randint(11, (rows, 5)), torch.randint(11, (rows, 5))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        tokens, target = batch
        return F.cross_entropy(model(tokens).flatten(0, 1), target.flatten())
