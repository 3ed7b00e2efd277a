"""Every member gets the reduction of what all members have."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as functional

from distparity.operations.arithmetic import reduce
from distparity.operations.base import Exact
from distparity.operations.collectives.base import NONCONTIGUOUS, Call, Collective, Exchange, Shape


class AllReduce(Collective):
    ways = ("tensor", "functional", "coalesced", NONCONTIGUOUS)
    reduces = True
    in_place = ("tensor",)

    def given(self, check: Exchange, shape: Shape, count: int) -> list[Shape]:
        return [shape, (3,)] if check.way == "coalesced" else [shape]

    def specials(self, way: str) -> tuple[str, ...]:
        return ("async",) if way == "tensor" else ()

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        return [
            reduce(check.setting.op or "SUM", list(terms)) for terms in zip(*given, strict=True)
        ]

    def call(self, call: Call) -> list[torch.Tensor] | None:
        if call.way == "functional":
            return [functional.all_reduce(call.given[0], call.word, call.group)]
        if call.way == "coalesced":
            return functional.all_reduce_coalesced(call.given, call.word, call.group)
        work = dist.all_reduce(call.given[0], call.op, call.group, async_op=call.is_async)
        if work is not None:
            work.wait()
        return None
