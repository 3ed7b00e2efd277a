"""``fully_shard`` with other resharding, placements, meshes and offloading."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from distparity.core.known_limit import Limit
from distparity.strategies._meshes import DeviceMesh, mesh
from distparity.strategies.fsdp2 import Fsdp2, fsdp_module

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

_REPLICATE_AND_SHARD = ("replicate", "shard")


class Fsdp2Reshard(Fsdp2):
    name = "fsdp2_reshard"
    title = "fully_shard(reshard_after_forward=True), the root as well"
    tier = "variant"

    def options(self, context: RankContext, root: bool) -> dict[str, Any]:
        return {"reshard_after_forward": True}


class Fsdp2ReshardTo2(Fsdp2):
    name = "fsdp2_reshard_to_2"
    title = "fully_shard(reshard_after_forward=2)"
    tier = "variant"
    # With that many ranks there is nothing to reshard to.
    least_ranks = 4
    ranks_multiple_of = 2

    def options(self, context: RankContext, root: bool) -> dict[str, Any]:
        return {"reshard_after_forward": 2}


class Fsdp2Zero2(Fsdp2):
    """ZeRO-2: whole parameters from the forward to the end of the backward."""

    name = "fsdp2_zero2"
    title = "fully_shard(reshard_after_forward=False)"
    tier = "variant"

    def options(self, context: RankContext, root: bool) -> dict[str, Any]:
        return {"reshard_after_forward": False}


class Fsdp2Zero1(Fsdp2Zero2):
    """ZeRO-1: whole parameters, and whole gradients, over all micro-batches of a step."""

    name = "fsdp2_zero1"
    title = "fully_shard(reshard_after_forward=False), no reshard between micro-batches"

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        model.set_reshard_after_backward(False)  # type: ignore[operator]
        with super().no_sync(model):
            yield
        model.set_reshard_after_backward(True)  # type: ignore[operator]


class Fsdp2RootOnly(Fsdp2):
    name = "fsdp2_root_only"
    title = "fully_shard of the whole model as one unit"
    tier = "variant"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        return super().wrap(model, [], context)


class Fsdp2Grouped(Fsdp2):
    """Two units are gathered together before the first, and reduced together after the last of them."""

    name = "fsdp2_grouped"
    title = "fully_shard of two units at a time, as one group"
    tier = "variant"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="fully_shard of a list of modules",
            answer=r"list|SupportsIndex|has no attribute",
            before=(2, 5),
        ),
        *Fsdp2.limits,
    )

    def groups(self, units: Sequence[nn.Module]) -> list[Any]:
        found: list[Any] = []
        waiting: nn.Module | None = None
        for unit in units:
            if waiting is None:
                waiting = unit
            elif any(one is waiting for one in unit.modules()):
                # A unit inside another one is gathered separately.
                found.append(waiting)
                waiting = unit
            else:
                found.append([waiting, unit])
                waiting = None
        return found if waiting is None else [*found, waiting]


class Fsdp2Prefetch(Fsdp2):
    """Every unit prefetches another one: a wrong choice costs time but changes no number."""

    name = "fsdp2_prefetch"
    title = "fully_shard, each unit told to prefetch the next, in forward and backward"
    tier = "variant"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="fully_shard with explicit prefetching",
            answer="set_modules_to_forward_prefetch",
            before=(2, 5),
        ),
        *Fsdp2.limits,
    )

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        wrapped = super().wrap(model, units, context)
        root: Any = wrapped
        root.set_modules_to_forward_prefetch(list(units[:1]))
        root.set_modules_to_backward_prefetch(list(units[-1:]))
        for one, following in itertools.pairwise(units):
            one.set_modules_to_forward_prefetch([following])  # type: ignore[operator]
            following.set_modules_to_backward_prefetch([one])  # type: ignore[operator]
        return wrapped


class Fsdp2ReduceUnused(Fsdp2):
    name = "fsdp2_reduce_unused"
    title = "fully_shard, set_reduce_scatter_unused_params(True)"
    tier = "variant"
    made_for = ("unused_on_some_ranks",)
    lacks: ClassVar[Mapping[str, str]] = {
        feature: reason
        for feature, reason in Fsdp2.lacks.items()
        if feature != "unused_on_some_ranks"
    }
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="fully_shard that reduces parameters without a gradient",
            answer="set_reduce_scatter_unused_params",
            before=(2, 13),
        ),
        *Fsdp2.limits,
    )

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        wrapped = super().wrap(model, units, context)
        root: Any = wrapped
        root.set_reduce_scatter_unused_params(reduce_scatter_unused_params=True)
        return wrapped


class Fsdp2Dim1(Fsdp2):
    name = "fsdp2_dim1"
    title = "fully_shard(shard_placement_fn), on dim 1 where it divides evenly"
    tier = "variant"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="fully_shard with shard_placement_fn",
            answer=r"shard_placement_fn|torch.distributed.tensor",
            before=(2, 6),
        ),
        *Fsdp2.limits,
    )

    def options(self, context: RankContext, root: bool) -> dict[str, Any]:
        from torch.distributed.tensor import Shard

        def placement(parameter: nn.Parameter) -> Shard | None:
            # "FSDP does not support uneven sharding on non-zero dim", as fully_shard says.
            even = parameter.ndim > 1 and parameter.shape[1] % context.world_size == 0
            return Shard(1) if even else None

        return {"shard_placement_fn": placement}


class Fsdp2CpuOffload(Fsdp2):
    name = "fsdp2_cpu_offload"
    title = "fully_shard(CPUOffloadPolicy)"
    tier = "variant"
    parameters_on = "cpu"

    def options(self, context: RankContext, root: bool) -> dict[str, Any]:
        # There is no copy from the CPU to the CPU, and so no memory is pinned.
        pin = context.device.type != "cpu"
        return {"offload_policy": fsdp_module().CPUOffloadPolicy(pin_memory=pin)}


class Fsdp2Hsdp(Fsdp2):
    name = "fsdp2_hsdp"
    title = "fully_shard on a 2-D mesh: replicas of shards of 2"
    tier = "variant"
    least_ranks = 4
    ranks_multiple_of = 2

    def mesh(self, context: RankContext) -> DeviceMesh:
        return mesh(context, (context.world_size // 2, 2), _REPLICATE_AND_SHARD)


class Fsdp2HsdpReduceScatterOnly(Fsdp2Hsdp):
    """Micro-batches before the last are reduced among the ranks of a shard, not among replicas."""

    name = "fsdp2_hsdp_reduce_scatter_only"
    title = "fully_shard on a 2-D mesh, set_requires_all_reduce(False) between micro-batches"

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        model.set_requires_all_reduce(False)  # type: ignore[operator]
        yield
        model.set_requires_all_reduce(True)  # type: ignore[operator]


class Fsdp2Hsdp1xN(Fsdp2):
    name = "fsdp2_hsdp_1xn"
    title = "fully_shard on a 2-D mesh of one replica"
    tier = "variant"

    def mesh(self, context: RankContext) -> DeviceMesh:
        return mesh(context, (1, context.world_size), _REPLICATE_AND_SHARD)


class Fsdp2HsdpNx1(Fsdp2):
    name = "fsdp2_hsdp_nx1"
    title = "fully_shard on a 2-D mesh of replicas that nothing shards"
    tier = "variant"
    replicates = True

    def mesh(self, context: RankContext) -> DeviceMesh:
        return mesh(context, (context.world_size, 1), _REPLICATE_AND_SHARD)
