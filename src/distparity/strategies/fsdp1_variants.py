"""``FullyShardedDataParallel`` with other sharding strategies, prefetching and offloading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import BackwardPrefetch, CPUOffload, ShardingStrategy

from distparity.core.known_limit import Limit
from distparity.strategies._meshes import mesh
from distparity.strategies.fsdp1 import Fsdp1, Fsdp1OrigParams

if TYPE_CHECKING:
    from distparity.devices.context import RankContext


class _ShardGradOp(Fsdp1):
    """A base class without a name makes no cases; the same holds for the base classes below."""

    tier = "variant"

    def options(self, context: RankContext) -> dict[str, Any]:
        return {"sharding_strategy": ShardingStrategy.SHARD_GRAD_OP}


class _NoShard(Fsdp1):
    tier = "variant"
    replicates = True

    def options(self, context: RankContext) -> dict[str, Any]:
        return {"sharding_strategy": ShardingStrategy.NO_SHARD}


class _Hybrid(Fsdp1):
    tier = "variant"
    least_ranks = 4
    ranks_multiple_of = 2
    sharding: ClassVar[ShardingStrategy] = ShardingStrategy.HYBRID_SHARD

    def options(self, context: RankContext) -> dict[str, Any]:
        shape = (context.world_size // 2, 2)
        return {
            "sharding_strategy": self.sharding,
            "device_mesh": mesh(context, shape, ("replicate", "shard")),
        }


class Fsdp1ShardGradOp(_ShardGradOp):
    name = "fsdp1_shard_grad_op"
    title = "FullyShardedDataParallel(SHARD_GRAD_OP)"


class Fsdp1ShardGradOpOrigParams(_ShardGradOp, Fsdp1OrigParams):
    name = "fsdp1_shard_grad_op_orig_params"
    title = "FullyShardedDataParallel(SHARD_GRAD_OP, use_orig_params=True)"


class Fsdp1NoShard(_NoShard):
    name = "fsdp1_no_shard"
    title = "FullyShardedDataParallel(NO_SHARD)"


class Fsdp1NoShardOrigParams(_NoShard, Fsdp1OrigParams):
    name = "fsdp1_no_shard_orig_params"
    title = "FullyShardedDataParallel(NO_SHARD, use_orig_params=True)"


class Fsdp1Hybrid(_Hybrid):
    name = "fsdp1_hybrid"
    title = "FullyShardedDataParallel(HYBRID_SHARD), shards of 2"


class Fsdp1HybridOrigParams(_Hybrid, Fsdp1OrigParams):
    name = "fsdp1_hybrid_orig_params"
    title = "FullyShardedDataParallel(HYBRID_SHARD, use_orig_params=True), shards of 2"


class Fsdp1HybridZero2(_Hybrid):
    name = "fsdp1_hybrid_zero2"
    title = "FullyShardedDataParallel(_HYBRID_SHARD_ZERO2), shards of 2"
    sharding = ShardingStrategy._HYBRID_SHARD_ZERO2  # noqa: SLF001  its documented name


class Fsdp1SyncStates(Fsdp1):
    name = "fsdp1_sync_states"
    title = "FullyShardedDataParallel(sync_module_states=True)"
    tier = "variant"
    made_for = ("begins_with_rank_0",)
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="FSDP with sync_module_states on cpu, which moves states by an accelerator",
            answer="sync_module_states",
            device="cpu",
        ),
        *Fsdp1.limits,
    )
    lacks: ClassVar[Mapping[str, str]] = {
        feature: reason
        for feature, reason in Fsdp1.lacks.items()
        if feature != "begins_with_rank_0"
    }

    def options(self, context: RankContext) -> dict[str, Any]:
        return {"sync_module_states": True}


class Fsdp1Mesh(Fsdp1):
    """Its sharded state dicts are of DTensors, where those of a process group are not."""

    name = "fsdp1_mesh"
    title = "FullyShardedDataParallel(device_mesh)"
    tier = "variant"
    made_for = ("reload_sharded", "reload_checkpoint")

    def options(self, context: RankContext) -> dict[str, Any]:
        return {"device_mesh": mesh(context, (context.world_size,))}


class Fsdp1Hook(Fsdp1):
    name = "fsdp1_hook"
    title = "FullyShardedDataParallel, a communication hook that averages"
    tier = "variant"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        wrapped = super().wrap(model, units, context)
        wrapped.register_comm_hook(None, average)  # type: ignore[operator]
        return wrapped


def average(_: None, gradient: torch.Tensor, shard: torch.Tensor) -> None:
    """A rank's shard of the mean over ranks of the gradients of a unit."""
    dist.reduce_scatter_tensor(shard, gradient)
    shard.div_(dist.get_world_size())


class Fsdp1Prefetch(Fsdp1):
    name = "fsdp1_prefetch"
    title = "FullyShardedDataParallel(forward_prefetch=True, BACKWARD_POST)"
    tier = "variant"

    def options(self, context: RankContext) -> dict[str, Any]:
        return {"forward_prefetch": True, "backward_prefetch": BackwardPrefetch.BACKWARD_POST}


class Fsdp1NoPrefetch(Fsdp1):
    name = "fsdp1_no_prefetch"
    title = "FullyShardedDataParallel(backward_prefetch=None, limit_all_gathers=False)"
    tier = "variant"

    def options(self, context: RankContext) -> dict[str, Any]:
        return {"backward_prefetch": None, "limit_all_gathers": False}


class Fsdp1CpuOffload(Fsdp1):
    name = "fsdp1_cpu_offload"
    title = "FullyShardedDataParallel(CPUOffload)"
    tier = "variant"
    parameters_on = "cpu"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="FSDP with CPUOffload on cpu, which pins memory",
            answer=r"accelerator|CUDA|NVIDIA driver|pin",
            device="cpu",
        ),
        *Fsdp1.limits,
    )
    lacks: ClassVar[Mapping[str, str]] = {
        **Fsdp1.lacks,
        "exchanges_often": '"FSDP does not support gradient accumulation outside no_sync() when using '
        'CPU offloading"',
    }

    def options(self, context: RankContext) -> dict[str, Any]:
        return {"cpu_offload": CPUOffload(offload_params=True)}
