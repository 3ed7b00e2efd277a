"""The optimizer takes parameters one by one, without ``foreach`` kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from distparity.scenarios.calls.basic import Basic


class OneByOne(Basic):
    steps = 4

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=0.05, eps=1e-3, foreach=False)
