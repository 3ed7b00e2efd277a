"""An embedding whose gradient is a sparse tensor: only the rows that were looked up are in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from distparity.scenarios.layers.embedding import Embedding


class EmbeddingSparse(Embedding):
    traits = ("sparse_gradient",)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(5, 6, sparse=True), nn.Tanh(), nn.Linear(6, 7))

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        # torch refuses momentum, and fused kernels, for sparse gradients.
        return torch.optim.SGD(parameters, lr=0.1, foreach=False)
