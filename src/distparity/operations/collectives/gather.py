"""The root gets what all members have, in their order."""

from __future__ import annotations

import torch
import torch.distributed as dist

from distparity.operations.base import Exact
from distparity.operations.collectives.base import (
    NONCONTIGUOUS,
    Call,
    Collective,
    Exchange,
    exactly,
)


class Gather(Collective):
    ways = ("list", NONCONTIGUOUS)
    rooted = "getter"
    ordered = True

    def specials(self, way: str) -> tuple[str, ...]:
        # The documentation excludes different sizes ("appropriately, same-sized tensors").
        return ("async",)

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        return [exactly(tensor) for (tensor,) in given] if me == check.setting.root else []

    def call(self, call: Call) -> list[torch.Tensor] | None:
        places = call.taken if call.is_root else None
        work = dist.gather(call.given[0], places, call.root, call.group, async_op=call.is_async)
        if work is not None:
            work.wait()
        return None
