"""Two forwards come before two backwards, which run in the order of the forwards."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class TwoBackwards(Basic):
    traits = ("two_backwards",)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return torch.stack(self.losses(model, batch)).sum()

    def losses(self, model: nn.Module, batch: Batch) -> list[torch.Tensor]:
        x, target = batch
        first, second = model(x), model(x.flip(1))
        return [(first - target).square().mean(), (second - target).square().mean()]
