"""Two groups of parameters, with learning rates and weight decays of their own.

Biases are not decayed, as is the custom; a layer has a parameter in either group.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class ParameterGroups(Basic):
    steps = 4
    traits = ("groups_in_unit",)

    def groups(self, named: dict[str, nn.Parameter]) -> Iterable[Any]:
        biases = [parameter for name, parameter in named.items() if name.endswith("bias")]
        others = [parameter for name, parameter in named.items() if not name.endswith("bias")]
        return [{"params": biases, "lr": 0.2}, {"params": others, "weight_decay": 0.1}]

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
