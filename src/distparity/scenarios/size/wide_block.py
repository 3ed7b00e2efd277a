"""A block of a transformer of width 1024 with 16 heads: 12.6 million parameters."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario

WIDTH, HEADS, TOKENS, FEATURES, CLASSES = 1024, 16, 8, 6, 12


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        # A bias of the keys adds the same to all scores of a query: its gradient would be only rounding.
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            at(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for at in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.before = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.between = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = x + self.attention(self.before(x))
        x = x + self.down(F.gelu(self.up(self.between(x))))
        out: torch.Tensor = self.head(x)
        return out


class WideBlock(Scenario):
    large = True
    steps = 2
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.attention, model.up, model.down]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, TOKENS, FEATURES), torch.randint(CLASSES, (rows, TOKENS))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        return F.cross_entropy(model(x).flatten(0, 1), target.flatten())
