"""``torch.compile`` of a unit, inside whatever wraps the model."""

from __future__ import annotations

from torch import nn

from distparity.scenarios.calls.basic import Basic


class Compiled(Basic):
    slow = True
    dtypes = ("float32",)
    traits = ("compiled",)

    def model(self) -> nn.Module:
        model = super().model()
        assert isinstance(model, nn.Sequential)
        for unit in (model[0], model[2]):
            unit.compile(backend="aot_eager")
        return model
