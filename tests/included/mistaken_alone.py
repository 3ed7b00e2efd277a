"""A scenario that itself raises an exception with words like torch's."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios import Batch
from distparity.scenarios.calls.basic import Basic


class MistakenAlone(Basic):
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")
