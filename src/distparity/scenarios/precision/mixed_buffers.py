"""Units compute in bfloat16 and use buffers, which keep their dtypes."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.parameters.buffers import Buffers, Model
from distparity.scenarios.precision.mixed_bfloat16 import MixedBfloat16


class Cast(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.inner(x))
        x = x * (self.scale * (1 + self.turns) / 2).to(x.dtype)
        out: torch.Tensor = self.outer(torch.where(self.keep, x, 0.5 * x))
        return out


class MixedBuffers(MixedBfloat16, Buffers):
    def model(self) -> nn.Module:
        return Cast()
