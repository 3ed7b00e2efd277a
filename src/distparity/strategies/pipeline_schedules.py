"""Further schedules of ``torch.distributed.pipelining``, of two stages a rank."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar

import torch

from distparity.core.known_limit import Limit
from distparity.strategies.pipeline import GPipe, pipelining

if TYPE_CHECKING:
    from distparity.devices.context import RankContext


class _TwoStages(GPipe):
    """A base class without a name makes no cases; the same holds for the next one."""

    per_rank = 2
    cuts: ClassVar[Mapping[str, int]] = {"stages": 2}

    def attempt(self, context: RankContext, dtype: torch.dtype, features: Collection[str]) -> None:
        getattr(pipelining(), self.schedule)


class _InAVee(_TwoStages):
    """Stages go down the ranks and up again: the first rank has the first and the last stage."""

    enters_at_first = True

    def holder(self, stage: int, ranks: int) -> int:
        return min(stage, 2 * ranks - 1 - stage)


class LoopedBfs(_TwoStages):
    name = "pp_looped_bfs"
    title = "pipelining.ScheduleLoopedBFS, two stages a rank"
    schedule = "ScheduleLoopedBFS"


class InterleavedZeroBubble(_TwoStages):
    name = "pp_zero_bubble"
    title = "pipelining.ScheduleInterleavedZeroBubble, two stages a rank"
    schedule = "ScheduleInterleavedZeroBubble"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit("ScheduleInterleavedZeroBubble", "has no attribute .Schedule", before=(2, 5)),
    )


class ZbvZeroBubble(_InAVee):
    name = "pp_zbv"
    title = "pipelining.ScheduleZBVZeroBubble, two stages a rank, in a V"
    schedule = "ScheduleZBVZeroBubble"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit("ScheduleZBVZeroBubble", "has no attribute .Schedule", before=(2, 6)),
    )


class DualPipeV(_InAVee):
    name = "pp_dual_pipe_v"
    title = "pipelining.ScheduleDualPipeV, two stages a rank, in a V"
    schedule = "ScheduleDualPipeV"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit("ScheduleDualPipeV", "has no attribute .Schedule", before=(2, 10)),
    )
