"""A strategy that does not wait for its collectives; ``--include unwaited`` makes cases of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from distparity.devices.context import RankContext
from distparity.strategies.ddp import Ddp


class Unwaited(Ddp):
    """Gradients are averaged in the background, and used before that has ended."""

    name = "unwaited"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        self.works: list[dist.Work | None] = []

        def average(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            parameter.grad.div_(context.world_size)
            self.works.append(dist.all_reduce(parameter.grad, async_op=True))

        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(average)
        return nn.ModuleDict({"module": model})["module"]

    def clean(self, name: str) -> str:
        return name
