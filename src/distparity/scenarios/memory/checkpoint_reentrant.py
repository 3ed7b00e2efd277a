"""Activations are computed again in the backward, by a backward within the backward."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.memory.checkpoint import Checkpoint, Model


class Reentrant(Model):
    reentrant = True


class CheckpointReentrant(Checkpoint):
    traits: ClassVar[tuple[str, ...]] = ("twice", "recomputed", "recomputed_reentrant")

    def model(self) -> nn.Module:
        return Reentrant()

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        # A reentrant checkpoint needs an input that requires a gradient.
        return super().loss(model, (x.requires_grad_(), target))
