"""A unit is frozen for some of the steps, while the optimizer keeps its momentum."""

from __future__ import annotations

from torch import nn

from distparity.scenarios.calls.basic import Basic


class FrozenNowAndThen(Basic):
    steps = 5
    traits = ("frozen", "frozen_after_wrap", "thawed")

    def before_step(self, model: nn.Module, step: int) -> None:
        model[2].requires_grad_(not self._frozen(step))  # type: ignore[index]

    def idle(self, step: int) -> list[str]:
        return ["2.weight", "2.bias"] if self._frozen(step) else []

    def _frozen(self, step: int) -> bool:
        return step in (1, 2)
