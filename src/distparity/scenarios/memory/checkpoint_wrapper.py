"""The units themselves are wrapped to compute their activations again; then they are sharded.

This is how training libraries do it: ``checkpoint_wrapper`` first, the sharding around it.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from distparity.scenarios.calls.basic import Basic


class CheckpointWrapper(Basic):
    traits = ("recomputed",)

    def before_wrap(self, model: nn.Module) -> None:
        assert isinstance(model, nn.Sequential)
        for number in (0, 2):
            model[number] = checkpoint_wrapper(model[number])

    def original_name(self, name: str) -> str:
        return name.replace("_checkpoint_wrapped_module.", "")
