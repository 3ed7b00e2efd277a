"""Frozen and trained parameters in one unit, as in a model that trains only its biases."""

from __future__ import annotations

from torch import nn

from distparity.scenarios.calls.basic import Basic


class FrozenInUnit(Basic):
    traits = ("frozen", "frozen_in_unit")

    def model(self) -> nn.Module:
        model = super().model()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
        return model

    def idle(self, step: int) -> list[str]:
        return ["0.weight", "2.weight", "4.weight"]
