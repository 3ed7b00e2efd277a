"""A unit is frozen after it was wrapped, and before the optimizer is made."""

from __future__ import annotations

from torch import nn

from distparity.scenarios.calls.basic import Basic


class FrozenAfterWrap(Basic):
    traits = ("frozen", "frozen_after_wrap")

    def after_wrap(self, model: nn.Module) -> None:
        model[2].requires_grad_(requires_grad=False)  # type: ignore[index]

    def idle(self, step: int) -> list[str]:
        return ["2.weight", "2.bias"]
