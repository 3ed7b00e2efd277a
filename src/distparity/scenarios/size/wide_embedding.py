"""An embedding of 50,000 rows, of which a batch uses a few hundred, and a head for as many classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario

WORDS, WIDTH, TOKENS = 50_000, 32, 32


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.hidden(self.embed(x))).mean(1))
        return out


class WideEmbedding(Scenario):
    large = True
    steps = 2
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.embed, model.hidden, model.head]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        return torch.randint(WORDS, (rows, TOKENS)), torch.randint(WORDS, (rows,))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        return F.cross_entropy(model(x), target)
