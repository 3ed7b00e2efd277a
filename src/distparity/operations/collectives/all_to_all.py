"""Every member gets the part of each member's data that is for it, in their order."""

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
    Shape,
    exactly,
)


class AllToAll(Collective):
    ways = ("list", "tensor", "functional", NONCONTIGUOUS)
    ordered = True
    parted = True

    def specials(self, way: str) -> tuple[str, ...]:
        return ("uneven",) if way == "functional" else ("async", "uneven")

    def given_by(self, check: Exchange, me: int, count: int) -> list[Shape]:
        shape = check.setting.shape
        if check.setting.special == "uneven":
            parts: list[Shape] = [(rows(me, other), 5) for other in range(count)]
            return parts if check.way == "list" else [(sum(part[0] for part in parts), 5)]
        if check.way == "list":
            return [shape] * count
        return [(count * shape[0], *shape[1:]) if shape else (count,)]

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        if check.way == "list":
            return [exactly(parts[me]) for parts in given]
        count = len(given)
        mine = []
        for peer, (whole,) in enumerate(given):
            sizes = [len(whole) // count] * count
            if check.setting.special == "uneven":
                sizes = [rows(peer, other) for other in range(count)]
            mine.append(whole.split(sizes)[me])
        return [exactly(torch.cat(mine))]

    def call(self, call: Call) -> list[torch.Tensor] | None:
        if call.way == "list":
            work = dist.all_to_all(call.taken, call.given, call.group, async_op=call.is_async)
        else:
            peers = range(len(call.team))
            uneven = call.setting.special == "uneven"
            gets = [rows(peer, call.me) for peer in peers] if uneven else None
            gives = [rows(call.me, peer) for peer in peers] if uneven else None
            if call.way == "functional":
                return [functional.all_to_all_single(call.given[0], gets, gives, call.group)]
            work = dist.all_to_all_single(
                call.taken[0], call.given[0], gets, gives, call.group, async_op=call.is_async
            )
        if work is not None:
            work.wait()
        return None


def rows(sender: int, receiver: int) -> int:
    """The number of rows that one member sends to another in uneven checks; some send nothing."""
    return (2 * sender + 3 * receiver + 1) % 5
