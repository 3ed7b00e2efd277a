"""Training that one world saves and another resumes, with more or fewer ranks, or another wrapper."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar

import torch

from distparity.core.known_limit import Limit
from distparity.strategies.base import Strategy
from distparity.strategies.ddp import Ddp
from distparity.strategies.fsdp1_variants import Fsdp1Mesh
from distparity.strategies.fsdp2 import Fsdp2

if TYPE_CHECKING:
    from distparity.devices.context import RankContext


class _Move(Strategy):
    """Two ranks save a distributed checkpoint, and end; a new world loads it.

    A base class without a name makes no cases; the same holds for the classes below with an underscore.
    """

    needs: ClassVar[Mapping[str, str]] = {
        "reload_checkpoint": "nothing is saved to disk from which another world could resume",
    }
    least_ranks = 2
    most_ranks = 2
    resume_world_size = 2
    before: ClassVar[Strategy]
    after: ClassVar[Strategy]

    def phase(self, number: int) -> Strategy:
        return (self.before, self.after)[number]

    def attempt(self, context: RankContext, dtype: torch.dtype, features: Collection[str]) -> None:
        for strategy in (self.before, self.after):
            strategy.attempt(context, dtype, features)


class _WithinFsdp1(_Move):
    # Without a mesh, state dicts have ShardedTensors, which only the same number of ranks can load.
    # With a mesh they have DTensors, which any number of ranks can load.
    before: ClassVar[Strategy] = Fsdp1Mesh()
    after: ClassVar[Strategy] = Fsdp1Mesh()


class _WithinFsdp2(_Move):
    before: ClassVar[Strategy] = Fsdp2()
    after: ClassVar[Strategy] = Fsdp2()
    limits: ClassVar[tuple[Limit, ...]] = Fsdp2.limits


class Fsdp1To1(_WithinFsdp1):
    name = "fsdp1_to_1"
    title = "FullyShardedDataParallel by 2 ranks, then by 1"
    resume_world_size = 1


class Fsdp1To3(_WithinFsdp1):
    name = "fsdp1_to_3"
    title = "FullyShardedDataParallel by 2 ranks, then by 3"
    resume_world_size = 3


class Fsdp1To4(_WithinFsdp1):
    name = "fsdp1_to_4"
    title = "FullyShardedDataParallel by 2 ranks, then by 4"
    resume_world_size = 4


class Fsdp2To1(_WithinFsdp2):
    name = "fsdp2_to_1"
    title = "fully_shard by 2 ranks, then by 1"
    resume_world_size = 1


class Fsdp2To3(_WithinFsdp2):
    name = "fsdp2_to_3"
    title = "fully_shard by 2 ranks, then by 3"
    resume_world_size = 3


class Fsdp2To4(_WithinFsdp2):
    name = "fsdp2_to_4"
    title = "fully_shard by 2 ranks, then by 4"
    resume_world_size = 4


class DdpToFsdp1(_Move):
    name = "ddp_to_fsdp1"
    title = "DistributedDataParallel by 2 ranks, then FullyShardedDataParallel by 4"
    resume_world_size = 4
    replicates = True
    before = Ddp()
    after = Fsdp1Mesh()


class DdpToFsdp2(_Move):
    name = "ddp_to_fsdp2"
    title = "DistributedDataParallel by 2 ranks, then fully_shard by 4"
    resume_world_size = 4
    replicates = True
    before = Ddp()
    after = Fsdp2()
    limits: ClassVar[tuple[Limit, ...]] = Fsdp2.limits


class Fsdp1ToDdp(_Move):
    name = "fsdp1_to_ddp"
    title = "FullyShardedDataParallel by 2 ranks, then DistributedDataParallel by 4"
    resume_world_size = 4
    before = Fsdp1Mesh()
    after = Ddp()


class Fsdp1ToFsdp2(_Move):
    name = "fsdp1_to_fsdp2"
    title = "FullyShardedDataParallel by 2 ranks, then fully_shard by 4"
    resume_world_size = 4
    before = Fsdp1Mesh()
    after = Fsdp2()
    limits: ClassVar[tuple[Limit, ...]] = Fsdp2.limits


class Fsdp2ToDdp(_Move):
    name = "fsdp2_to_ddp"
    title = "fully_shard by 2 ranks, then DistributedDataParallel by 4"
    resume_world_size = 4
    before = Fsdp2()
    after = Ddp()
    limits: ClassVar[tuple[Limit, ...]] = Fsdp2.limits


class Fsdp2ToFsdp1(_Move):
    name = "fsdp2_to_fsdp1"
    title = "fully_shard by 2 ranks, then FullyShardedDataParallel by 4"
    resume_world_size = 4
    before = Fsdp2()
    after = Fsdp1Mesh()
    limits: ClassVar[tuple[Limit, ...]] = Fsdp2.limits
