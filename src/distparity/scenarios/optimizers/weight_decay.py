"""Weight decay pulls at every parameter, also where its gradient is small."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class WeightDecay(Basic):
    anchor = True
    steps = 4
    traits = ("weight_decay",)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
