"""Convolutions, grouped and transposed: weights of four dimensions."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class Convolution(Basic):
    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(6, 4, 3, groups=2, bias=False),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 3, 2, stride=2),
            nn.Flatten(),
            nn.Linear(48, 3),
        )

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 2, 4, 4), torch.randn(rows, 3)
