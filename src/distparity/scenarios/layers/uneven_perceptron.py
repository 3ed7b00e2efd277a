"""A perceptron whose widths divide by no number of ranks: where they are split, shards differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class UnevenPerceptron(Basic):
    traits = ("splits_unevenly",)
    tensor_parallel: ClassVar[Mapping[str, str]] = {"0": "column", "2": "row", "4": "split"}

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)
        )

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 6), torch.randn(rows, 3)
