"""``torch.compile`` of a unit, inside whatever wraps the model."""

from __future__ import annotations

from torch import nn

from distparity.scenarios.calls.basic import Basic


class Compiled(Basic):
    slow = True
    dtypes = ("float32",)
    traits = ("compiled",)

    def before_wrap(self, model: nn.Module) -> None:
        for unit in self.units(model):
            unit.compile(backend="aot_eager")
