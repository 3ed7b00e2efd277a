"""A strategy that is wrong for some data: it doubles the gradients if the first parameter says so."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from distparity.devices.context import RankContext
from distparity.strategies.ddp import Ddp


class Sometimes(Ddp):
    name = "sometimes"
    title = "wrong for some data"
    tier = "variant"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        first = next(model.parameters())
        if int(float(first.flatten()[0].abs()) * 1000) % 3 == 0:
            first.register_hook(lambda gradient: 2 * gradient)
        return super().wrap(model, units, context)
