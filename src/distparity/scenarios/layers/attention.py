"""Multi-head attention over a sequence, causal."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.leave = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.enter(x))
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        x = x + self.attend(x, x, x, attn_mask=ahead, need_weights=False)[0]
        out: torch.Tensor = self.leave(x)
        return out


class Attention(Basic):
    def model(self) -> nn.Module:
        return Model()

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model.attend]  # type: ignore[list-item]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 4, 6), torch.randn(rows, 4, 3)
