"""It is another one each time, from its second step on: no parity can be asked of it."""

import itertools

import torch
from torch import nn

from distparity.scenarios import Batch
from distparity.scenarios.calls.basic import Basic

CALLS = itertools.count()


class Changing(Basic):
    factor = 1.0

    def before_step(self, model: nn.Module, step: int) -> None:
        # The first step keeps what is asked of every scenario before it is trained.
        self.factor = 1 + step * next(CALLS) / 100

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return super().loss(model, batch) * self.factor
