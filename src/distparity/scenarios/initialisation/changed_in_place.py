"""Parameters are changed in place after they were wrapped, before the first step."""

from __future__ import annotations

import torch
from torch import nn

from distparity.scenarios.calls.basic import Basic


class ChangedInPlace(Basic):
    def after_wrap(self, model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
