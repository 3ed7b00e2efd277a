"""Two forwards come before two backwards, which run in the reverse order."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.two_backwards import TwoBackwards


class TwoBackwardsReversed(TwoBackwards):
    def losses(self, model: nn.Module, batch: Batch) -> list[torch.Tensor]:
        return super().losses(model, batch)[::-1]
