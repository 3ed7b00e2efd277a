"""A unit is called twice, and one of the two outputs is not used in the loss.

The unit's parameters are gathered twice, and only one call has a backward.
"""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.multiple_forward import Model, MultipleForward


class OneOutput(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once = torch.tanh(self.inner(x))
        torch.tanh(self.inner(once))
        out: torch.Tensor = self.outer(once)
        return out


class UnusedOutput(MultipleForward):
    traits = ()

    def model(self) -> nn.Module:
        return OneOutput()
