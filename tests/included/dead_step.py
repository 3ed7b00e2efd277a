"""The step is so small that it would not show if it were not made."""

from collections.abc import Iterable

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class DeadStep(Basic):
    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e-9)
