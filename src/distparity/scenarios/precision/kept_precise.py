"""Units compute in bfloat16, except the normalisation, which stays in float32."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.precision.mixed_bfloat16 import MixedBfloat16


class Norm(nn.LayerNorm):
    """A layer norm that computes in its own parameters' dtype, whatever the input's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class KeptPrecise(MixedBfloat16):
    kept_precise = ("1",)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), Norm(8), nn.Tanh(), nn.Linear(8, 3))

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0], model[1]]  # type: ignore[index]
