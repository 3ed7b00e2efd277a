"""Every member gets what the root has."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as functional

from distparity.operations.base import Exact
from distparity.operations.collectives.base import (
    NONCONTIGUOUS,
    Call,
    Collective,
    Exchange,
    exactly,
)


class Broadcast(Collective):
    ways = ("tensor", "functional", NONCONTIGUOUS)
    rooted = "giver"
    in_place = ("tensor",)

    def specials(self, way: str) -> tuple[str, ...]:
        return ("async",) if way == "tensor" else ()

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        return [exactly(given[check.setting.root or 0][0])]

    def call(self, call: Call) -> list[torch.Tensor] | None:
        if call.way == "functional":
            # Unlike the other functions, it takes the root's rank in the group.
            return [functional.broadcast(call.given[0], call.setting.root or 0, call.group)]
        work = dist.broadcast(call.given[0], call.root, call.group, async_op=call.is_async)
        if work is not None:
            work.wait()
        return None
