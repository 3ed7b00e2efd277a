"""Hugging Face Accelerate: ``Accelerator().prepare`` (pip install accelerate)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import distparity
from distparity.strategies.ddp import Ddp

accelerate = pytest.importorskip("accelerate")


class Perceptron(distparity.Scenario):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

    def batch(self, rows: int) -> distparity.Batch:
        return torch.randn(rows, 6), torch.randn(rows, 3)

    def loss(self, model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
        x, target = batch
        return F.mse_loss(model(x), target)


class Prepared(Ddp):
    """What ``prepare`` makes of a model: by default, a ``DistributedDataParallel``."""

    name = "accelerate"
    title = "Accelerator().prepare"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: Any) -> nn.Module:
        self.accelerator = accelerate.Accelerator(cpu=context.device.type == "cpu")
        return self.accelerator.prepare(model)

    def backward(self, loss: torch.Tensor, number: int, count: int) -> None:
        self.accelerator.backward(loss)


test_accelerate = distparity.cases(Perceptron, strategies=[Prepared], world_sizes=[2, 4])
