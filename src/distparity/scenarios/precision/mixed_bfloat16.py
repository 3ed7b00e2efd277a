"""Units compute in bfloat16 with float32 parameters, and reduce gradients in float32."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic
from distparity.torch_support.precision import Precision


class MixedBfloat16(Basic):
    dtypes = ("float32",)
    precision: ClassVar[Precision | None] = Precision(computes_in="bfloat16", reduces_in="float32")

    def batch(self, rows: int) -> Batch:
        # Large targets, so that gradients are well above the rounding errors of bfloat16.
        x, target = super().batch(rows)
        return x, 4 * target

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        return F.mse_loss(model(x).to(target.dtype), target)
