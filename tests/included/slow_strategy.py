"""A strategy that takes its time, so that a test can end the run in the middle of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import nn

from distparity.devices.context import RankContext
from distparity.strategies.ddp import Ddp


class Slow(Ddp):
    name = "slow"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        time.sleep(30)
        return super().wrap(model, units, context)
