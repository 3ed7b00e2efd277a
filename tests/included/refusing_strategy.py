"""Strategies with a declared limit: what torch refuses, what it does not, and an error of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from distparity.devices.context import RankContext
from distparity.strategies import Limit
from distparity.strategies.ddp import Ddp

LIMIT = Limit("refusing on this device", "shapes cannot be multiplied")


class Refusing(Ddp):
    name = "refusing"
    limits = (LIMIT,)

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        torch.ones(2, 3) @ torch.ones(2, 3)
        return super().wrap(model, units, context)


class Outdated(Ddp):
    """Declares what torch no longer refuses."""

    name = "outdated"
    limits = (LIMIT,)


class Mistaken(Refusing):
    """Raises itself what the limit says that torch does."""

    name = "mistaken"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        raise RuntimeError("shapes cannot be multiplied")
