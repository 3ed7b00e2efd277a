"""Before each step the model is evaluated under ``torch.no_grad``, with the parameters of the last step.

The evaluation is part of the loss as a number, so that its value is compared, and has no gradient.
"""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class Evaluation(Basic):
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            seen = super().loss(model, batch)
        model.train()
        return super().loss(model, batch) + seen
