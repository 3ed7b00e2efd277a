"""It is another one each time: no parity can be asked of it."""

import itertools

import torch
from torch import nn

from distparity.scenarios import Batch
from distparity.scenarios.calls.basic import Basic

CALLS = itertools.count()


class Changing(Basic):
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return super().loss(model, batch) * (1 + next(CALLS) / 100)
