"""Two layers in different units share one weight."""

from __future__ import annotations

from torch import nn

from distparity.scenarios.calls.basic import Basic


class TiedAcrossUnits(Basic):
    traits = ("tied", "tied_across_units")

    def model(self) -> nn.Module:
        enter, leave = nn.Linear(6, 6), nn.Linear(6, 6)
        leave.weight = enter.weight
        return nn.Sequential(enter, nn.Tanh(), leave, nn.Tanh(), nn.Linear(6, 3))

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0], model[2]]  # type: ignore[index]
