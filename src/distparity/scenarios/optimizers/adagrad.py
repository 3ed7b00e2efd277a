"""Adagrad: state that exists before the first step, and only grows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from distparity.scenarios.calls.basic import Basic


class Adagrad(Basic):
    steps = 4

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.Adagrad(parameters, lr=0.1, eps=1e-3)
