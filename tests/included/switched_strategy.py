"""A strategy that a variable makes wrong: two interpreters that differ, without two torches."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import nn

from distparity.devices.context import RankContext
from distparity.strategies.ddp import Ddp


class Switched(Ddp):
    """Gradients are exchanged, unless the switch is on."""

    name = "switched"
    wrong = "DISTPARITY_TEST_WRONG" in os.environ

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        if self.wrong:
            return nn.ModuleDict({"module": model})["module"]
        return super().wrap(model, units, context)

    def clean(self, name: str) -> str:
        return name if self.wrong else super().clean(name)
