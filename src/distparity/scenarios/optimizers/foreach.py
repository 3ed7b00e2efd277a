"""The optimizer takes all parameters at once, by ``foreach`` kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from distparity.scenarios.calls.basic import Basic


class Foreach(Basic):
    steps = 4

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, foreach=True)
