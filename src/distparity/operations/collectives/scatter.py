"""Every member gets its part of what the root has."""

from __future__ import annotations

import torch
import torch.distributed as dist

from distparity.operations.base import Exact
from distparity.operations.collectives.base import (
    NONCONTIGUOUS,
    Call,
    Collective,
    Exchange,
    Shape,
    exactly,
)


class Scatter(Collective):
    ways = ("list", NONCONTIGUOUS)
    rooted = "giver"
    parted = True

    def specials(self, way: str) -> tuple[str, ...]:
        return ("async",)

    def given(self, check: Exchange, shape: Shape, count: int) -> list[Shape]:
        # All of one size: other sizes are not documented, and gloo refuses them only on the root, while
        # the other ranks wait.
        return [shape] * count

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        return [exactly(given[check.setting.root or 0][me])]

    def call(self, call: Call) -> list[torch.Tensor] | None:
        parts = call.given if call.is_root else None
        work = dist.scatter(call.taken[0], parts, call.root, call.group, async_op=call.is_async)
        if work is not None:
            work.wait()
        return None
