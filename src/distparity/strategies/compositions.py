"""Strategies put together, and on meshes with a dim of one: for drawn scenarios only."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.distributed.fsdp import ShardingStrategy

from distparity.strategies._meshes import mesh
from distparity.strategies.fsdp1 import Fsdp1OrigParams
from distparity.strategies.spelling import Spelling
from distparity.strategies.tensor_parallel import (
    LossParallelism,
    SequenceParallelism,
    TensorParallelFsdp2,
)

if TYPE_CHECKING:
    from distparity.devices.context import RankContext


class _Hybrid(Fsdp1OrigParams):
    """A base class without a name makes no cases."""

    tier = "drawn"

    def shape(self, context: RankContext) -> tuple[int, int]:
        """Replicas, and ranks of a replica."""
        raise NotImplementedError

    def options(self, context: RankContext) -> dict[str, Any]:
        return {
            "sharding_strategy": ShardingStrategy.HYBRID_SHARD,
            "device_mesh": mesh(context, self.shape(context), ("replicate", "shard")),
        }


class Fsdp1Hybrid1xN(_Hybrid):
    name = "fsdp1_hybrid_1xn"
    title = "FullyShardedDataParallel(HYBRID_SHARD, use_orig_params=True), one replica"

    def shape(self, context: RankContext) -> tuple[int, int]:
        return 1, context.world_size


class Fsdp1HybridNx1(_Hybrid):
    name = "fsdp1_hybrid_nx1"
    title = "FullyShardedDataParallel(HYBRID_SHARD, use_orig_params=True), shards of 1"
    replicates = True

    def shape(self, context: RankContext) -> tuple[int, int]:
        return context.world_size, 1


class TensorParallelFsdp2Of1(TensorParallelFsdp2):
    """Data parallel by one: nothing is sharded, and hooks run all the same."""

    name = "fsdp2_1xn_tp"
    title = "parallelize_module over all ranks, fully_shard over one"
    tier = "drawn"
    least_ranks = 2
    ranks_multiple_of = 1

    def shape(self, context: RankContext) -> tuple[int, int]:
        return 1, context.world_size


class TensorParallelOf1Fsdp2(TensorParallelFsdp2):
    """Tensor parallel by one."""

    name = "fsdp2_nx1_tp"
    title = "parallelize_module over one rank, fully_shard over all"
    tier = "drawn"
    least_ranks = 2
    ranks_multiple_of = 1

    def shape(self, context: RankContext) -> tuple[int, int]:
        return context.world_size, 1


class SequenceParallelFsdp2(SequenceParallelism, TensorParallelFsdp2):
    name = "fsdp2_tp_sequence"
    title = "SequenceParallel between layers split by 2 ranks, fully_shard over the others"
    tier = "drawn"


class LossParallelFsdp2(LossParallelism, TensorParallelFsdp2):
    name = "fsdp2_tp_loss"
    title = "classes split by 2 ranks and loss_parallel, fully_shard over the others"
    tier = "drawn"


class LossParallelImplicit(LossParallelism):
    """Losses that need more than a cross entropy of the split classes."""

    name = "tp_loss_implicit"
    title = "classes split, loss_parallel; plain tensors count as replicated"
    tier = "drawn"

    @contextmanager
    def within(self) -> Iterator[None]:
        with super().within(), _experimental().implicit_replication():
            yield

    def spelled(self, context: RankContext) -> Spelling | None:
        found = super().spelled(context)
        if found is None:
            return None
        imports = f"from {_experimental().__name__} import implicit_replication"
        return replace(
            found,
            within=f"{found.within}, implicit_replication()",
            imports=(*found.imports, imports),
        )


def _experimental() -> Any:
    try:
        return importlib.import_module("torch.distributed.tensor.experimental")
    except ImportError:
        # Its place before 2.5.
        return importlib.import_module("torch.distributed._tensor.experimental")
