"""A forward hook changes what a unit returns, and a pre-hook what it is given.

A wrapper has hooks of its own on the same unit, and must leave the user's in their place.
"""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


def halve(_: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (args[0] * 0.5,)


def bend(_: nn.Module, __: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    return output + output.sin()


class ActivationHook(Basic):
    def model(self) -> nn.Module:
        model = super().model()
        unit = self.units(model)[1]
        unit.register_forward_pre_hook(halve)
        unit.register_forward_hook(bend)
        return model
