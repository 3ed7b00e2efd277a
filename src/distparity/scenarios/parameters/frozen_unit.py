"""A unit between trained ones is frozen before anything is wrapped."""

from __future__ import annotations

from torch import nn

from distparity.scenarios.calls.basic import Basic


class FrozenUnit(Basic):
    traits = ("frozen",)

    def model(self) -> nn.Module:
        model = super().model()
        self.units(model)[1].requires_grad_(requires_grad=False)
        return model

    def idle(self, step: int) -> list[str]:
        return ["2.weight", "2.bias"]
