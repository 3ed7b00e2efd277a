"""Scenarios whose reference runs fail: by torch's refusal, and by their own mistake."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios import Batch
from distparity.scenarios.calls.basic import Basic


class RefusedAlone(Basic):
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return super().loss(model, (batch[1], batch[1]))


class MistakenAlone(Basic):
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")
