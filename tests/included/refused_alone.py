"""A scenario that torch refuses, in one process already."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios import Batch
from distparity.scenarios.calls.basic import Basic


class RefusedAlone(Basic):
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return super().loss(model, (batch[1], batch[1]))
