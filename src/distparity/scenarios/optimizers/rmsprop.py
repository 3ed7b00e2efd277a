"""RMSprop, centred, with momentum: three tensors of state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from distparity.scenarios.calls.basic import Basic


class RMSprop(Basic):
    steps = 4

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=0.02, eps=1e-2, momentum=0.5, centered=True)
