"""``replicate``: a replica on every rank, applied to the module in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.distributed._composable import replicate

from distparity.core.known_limit import Limit
from distparity.strategies._meshes import DeviceMesh, mesh
from distparity.strategies.ddp import Ddp
from distparity.strategies.fsdp2 import Fsdp2
from distparity.torch_support.version import installed

if TYPE_CHECKING:
    from distparity.devices.context import RankContext


class Replicate(Ddp):
    name = "replicate"
    title = "replicate, by DistributedDataParallel"
    tier = "variant"
    lacks: ClassVar[Mapping[str, str]] = {
        **Ddp.lacks,
        "begins_with_rank_0": "replicate builds its reducer, which broadcasts, at the first forward",
        "uneven_batches": "it has no join",
    }

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        alone = [model.get_submodule(name) for name in self.left_alone]
        wrapped: nn.Module = replicate(model, ignored_modules=alone)
        return wrapped

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
        yield
        model.set_requires_gradient_sync(True)  # type: ignore[operator]

    def clean(self, name: str) -> str:
        return name


class ReplicateFsdp2(Fsdp2):
    name = "replicate_fsdp2"
    title = "replicate, by fully_shard"
    tier = "variant"
    replicates = True
    lacks: ClassVar[Mapping[str, str]] = {
        **Fsdp2.lacks,
        "precision": "how replicate takes a precision differs from release to release",
        "begins_with_rank_0": "replicate takes each rank's own parameters and broadcasts nothing",
    }
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(fact="replicate by fully_shard", answer=r"replicate_with_fsdp", before=(2, 9)),
        *Fsdp2.limits,
    )

    def mesh(self, context: RankContext) -> DeviceMesh:
        if installed() < (2, 10):
            return mesh(context, (context.world_size, 1), ("replicate", "shard"))
        # 2.10 requires a name for the only dim, which other releases accept.
        return mesh(context, (context.world_size,), ("replicate",))

    def shard(self, context: RankContext, model: nn.Module) -> Callable[[Any, bool], Any]:
        from torch.distributed._composable.replicate_with_fsdp import replicate as replicate_fsdp2

        name = "mesh" if installed() >= (2, 10) else "device_mesh"
        rest = {name: self.mesh(context), **self.ignored(model)}
        return lambda module, _: replicate_fsdp2(module, **rest)
