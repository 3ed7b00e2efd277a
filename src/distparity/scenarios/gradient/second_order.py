"""The loss contains a gradient: it penalises how fast the output changes with the input.

So a backward runs inside the forward, and the training's backward goes through both.
"""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class SecondOrder(Basic):
    traits = ("second_order",)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        x = x.requires_grad_()
        out = model(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        loss: torch.Tensor = (out - target).square().mean() + slope.square().mean()
        return loss
