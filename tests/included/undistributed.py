"""Strategies that compute what one process computes because nothing is distributed."""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distparity.devices.context import RankContext
from distparity.scenarios import Batch
from distparity.strategies import Tensors
from distparity.strategies.ddp import Ddp


class EachAlone(Ddp):
    """Every rank trains on the whole batch, and says that all share the rows."""

    name = "each_alone"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        return nn.ModuleDict({"module": model})["module"]

    def clean(self, name: str) -> str:
        return name

    def reducers(self, model: nn.Module) -> list[object]:
        return []

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        return batch

    def rows_shared_by(self, context: RankContext) -> int:
        return context.world_size


class FirstDoesAll(EachAlone):
    """Rank 0 has all rows and sends its gradients to the others."""

    name = "first_does_all"

    def gradients(self, model: nn.Module) -> Tensors:
        for parameter in model.parameters():
            assert parameter.grad is not None
            dist.broadcast(parameter.grad, 0)
        return super().gradients(model)

    def rows_shared_by(self, context: RankContext) -> int:
        return 1


class Halves(Ddp):
    """Two worlds of half the ranks, each of which trains on the whole batch."""

    name = "halves"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        half = context.world_size // 2
        groups = [dist.new_group(range(start, start + half)) for start in (0, half)]
        return DistributedDataParallel(model, process_group=groups[context.rank // half])

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        half = context.world_size // 2
        return tuple(tensor.chunk(half)[context.rank % half] for tensor in batch)

    def rows_shared_by(self, context: RankContext) -> int:
        return 2
