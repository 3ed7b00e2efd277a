"""Every unit is one weight whose rows divide by 2, 4 and 8: no rank is without a shard of any tensor."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class EvenShards(Basic):
    def model(self) -> nn.Module:
        first, second, last = (nn.Linear(*size, bias=False) for size in ((6, 8), (8, 8), (8, 8)))
        return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 6), torch.randn(rows, 8)
