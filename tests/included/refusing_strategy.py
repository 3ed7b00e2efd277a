"""Strategies with a declared limit: one that torch confirms, and one that it does not."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from distparity.devices.context import RankContext
from distparity.strategies import Limit
from distparity.strategies.ddp import Ddp

LIMIT = Limit("refusing on this device", "not on this device")


class Refusing(Ddp):
    name = "refusing"
    limits = (LIMIT,)

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        raise RuntimeError("not on this device")


class Outdated(Ddp):
    """Declares what torch no longer refuses."""

    name = "outdated"
    limits = (LIMIT,)
