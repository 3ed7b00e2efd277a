"""Layer normalisation: statistics per row, and parameters of one dimension."""

from __future__ import annotations

from torch import nn

from distparity.scenarios.calls.basic import Basic


class LayerNorm(Basic):
    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3), nn.GroupNorm(1, 3)
        )

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0], model[1]]  # type: ignore[index]
