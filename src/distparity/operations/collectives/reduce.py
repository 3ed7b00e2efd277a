"""The root gets the reduction of what all members have."""

from __future__ import annotations

import torch
import torch.distributed as dist

from distparity.operations import arithmetic
from distparity.operations.base import Exact
from distparity.operations.collectives.base import NONCONTIGUOUS, Call, Collective, Exchange


class Reduce(Collective):
    ways = ("tensor", NONCONTIGUOUS)
    reduces = True
    rooted = "getter"
    in_place = ("tensor",)

    def specials(self, way: str) -> tuple[str, ...]:
        return ("async",)

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        # The documentation does not define the other ranks' tensors after the call.
        if me != check.setting.root:
            return []
        return [arithmetic.reduce(check.setting.op or "SUM", [tensor for (tensor,) in given])]

    def call(self, call: Call) -> list[torch.Tensor] | None:
        work = dist.reduce(call.given[0], call.root, call.op, call.group, async_op=call.is_async)
        if work is not None:
            work.wait()
        return None
