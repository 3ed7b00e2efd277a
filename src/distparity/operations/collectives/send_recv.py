"""Every member sends to the next one, and gets what the one before it sends."""

from __future__ import annotations

from typing import ClassVar

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


class SendRecv(Collective):
    ways = ("tensor", "async", "batch", NONCONTIGUOUS)
    one_sided: ClassVar[bool] = True

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        return [exactly(given[me - 1][0])] if len(given) > 1 else []

    def call(self, call: Call) -> list[torch.Tensor] | None:
        if len(call.team) == 1:
            return None
        following = call.team[(call.me + 1) % len(call.team)]
        before = call.team[call.me - 1]
        (out,), (place,) = call.given, call.taken
        works: list[dist.Work | None] = []
        if call.way == "batch":
            wanted = [
                dist.P2POp(dist.isend, out, following, call.group),
                dist.P2POp(dist.irecv, place, before, call.group),
            ]
            works += dist.batch_isend_irecv(wanted)
        elif call.way == "async":
            works = [
                dist.isend(out, following, call.group),
                dist.irecv(place, before, call.group),
            ]
        else:
            # The first rank sends first: if all received first, all would wait for ever.
            if call.me == 0:
                dist.send(out, following, call.group)
            dist.recv(place, before, call.group)
            if call.me != 0:
                dist.send(out, following, call.group)
        for work in works:
            if work is not None:
                work.wait()
        return None
