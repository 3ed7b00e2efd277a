"""Layers whose gradients are larger than DDP's buckets and than the chunks of a collective library.

The hidden layer has 27 MB of gradients in float32; a bucket of DDP has 25 MiB. Its width does not divide
by the number of ranks, nor by 16 bytes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch, Scenario

WIDTH, FEATURES, CLASSES = 2603, 24, 10


class WideLayer(Scenario):
    large = True
    steps = 2
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, WIDTH),
            nn.Tanh(),
            nn.Linear(WIDTH, WIDTH),
            nn.Tanh(),
            nn.Linear(WIDTH, CLASSES),
        )

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [part for part in model if isinstance(part, nn.Linear)]  # type: ignore[attr-defined]

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, FEATURES), torch.randint(CLASSES, (rows,))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        return F.cross_entropy(model(x), target)
