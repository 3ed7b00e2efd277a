"""A small language model that trains for 20 steps: what drifts slowly has time to show."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LayerNorm(8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.second = nn.LayerNorm(8)
        self.feed = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        x = x + self.attend(y, y, y, attn_mask=ahead, need_weights=False)[0]
        out: torch.Tensor = x + self.feed(self.second(x))
        return out


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.places = nn.Parameter(torch.randn(5, 8) / 4)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.places
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(self.norm(x))
        return out


class Transformer(Scenario):
    steps = 20

    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return list(model.blocks)  # type: ignore[arg-type]

    def batch(self, rows: int) -> Batch:
        text = torch.randint(11, (rows, 6))
        return text[:, :-1], text[:, 1:]

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        tokens, following = batch
        return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())
