"""A block of a transformer, attention and perceptron, that predicts a class for every token.

Heads, hidden features and classes divide by 4, so that they can be split among ranks; tokens as
well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario

WIDTH, HEAD, TOKENS, FEATURES, CLASSES = 8, 2, 8, 6, 12


class Attention(nn.Module):
    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.query = nn.Linear(width, width)
        # A bias of the keys adds the same to all scores of a query: its gradient would be only rounding.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (self._heads(at(x)) for at in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        # The number of heads is taken from the tensor, because a rank may have only some of them.
        return x.view(*x.shape[:-1], -1, self.head).transpose(1, 2)


class Block(nn.Module):
    """From ``[rows, tokens, FEATURES]`` to ``[rows, tokens, CLASSES]``; ``head`` is the width of a head."""

    def __init__(self, width: int, head: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, width)
        self.before = nn.LayerNorm(width)
        self.attention = Attention(width, head)
        self.between = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = x + self.attention(self.before(x))
        x = x + self.down(F.gelu(self.up(self.between(x))))
        out: torch.Tensor = self.head(x)
        return out


class TransformerBlock(Scenario):
    tensor_parallel: ClassVar[Mapping[str, str]] = {
        "embed": "split",
        "before": "norm",
        "attention.query": "column",
        "attention.key": "column",
        "attention.value": "column",
        "attention.out": "row",
        "between": "norm",
        "up": "column",
        "down": "row",
        "head": "head",
    }
    most_parts = WIDTH // HEAD
    sequence_dim = 1
    traits = ("attention",)

    def model(self) -> nn.Module:
        return Block(WIDTH, HEAD, 2 * WIDTH)

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.attention, model.up, model.down]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, TOKENS, FEATURES), torch.randint(CLASSES, (rows, TOKENS))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        return F.cross_entropy(model(x).flatten(0, 1), target.flatten())
