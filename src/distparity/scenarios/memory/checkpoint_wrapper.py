"""The units themselves are wrapped to compute their activations again; then they are sharded.

This is how training libraries do it: ``checkpoint_wrapper`` first, the sharding around it.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from distparity.scenarios.calls.basic import Basic


class CheckpointWrapper(Basic):
    traits = ("recomputed",)

    def model(self) -> nn.Module:
        model = super().model()
        assert isinstance(model, nn.Sequential)
        for number in (0, 2):
            model[number] = checkpoint_wrapper(model[number])
        return model
