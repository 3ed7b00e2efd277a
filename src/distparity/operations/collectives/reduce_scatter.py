"""Every member gets its part of the reduction of what all members have."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as functional

from distparity.core.known_limit import Limit
from distparity.operations.arithmetic import reduce
from distparity.operations.base import Exact
from distparity.operations.collectives.base import NONCONTIGUOUS, Call, Collective, Exchange, Shape


class ReduceScatter(Collective):
    ways = ("list", "tensor", "stacked", "functional", "coalesced", NONCONTIGUOUS)
    apart = {"stacked": ("tensor", "stacked")}  # noqa: RUF012
    reduces = True
    parted = True
    limits = (
        *Collective.limits,
        Limit(
            fact="an input with a dim of its own for the ranks",
            answer=r"outputShape",
            feature="stacked",
        ),
    )

    def specials(self, way: str) -> tuple[str, ...]:
        return {
            "list": ("async", "uneven"),
            "tensor": ("async", "stacked"),
            "functional": ("dim 1",),
        }.get(way, ())

    def given(self, check: Exchange, shape: Shape, count: int) -> list[Shape]:
        way, special = check.way, check.setting.special
        if way == "list":
            return [(n + 2, 5) for n in range(count)] if special == "uneven" else [shape] * count
        if special == "stacked":
            return [(count, *shape)]
        if special == "dim 1":
            return [(shape[0], shape[1] * count)]
        whole = (count * shape[0], *shape[1:]) if shape else (count,)
        return [whole, (3 * count,)] if way == "coalesced" else [whole]

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        op = check.setting.op or "SUM"
        if check.way == "list":
            return [reduce(op, [tensors[me] for tensors in given])]
        count, special = len(given), check.setting.special
        dim = 1 if special == "dim 1" else 0
        found = []
        for terms in zip(*given, strict=True):
            mine = [term.chunk(count, dim)[me] for term in terms]
            # A part of one element has shape [1] if the input has no other dim.
            found.append(reduce(op, [part[0] if special == "stacked" else part for part in mine]))
        return found

    def call(self, call: Call) -> list[torch.Tensor] | None:
        if call.way == "functional":
            dim = 1 if call.setting.special == "dim 1" else 0
            return [functional.reduce_scatter_tensor(call.given[0], call.word, dim, call.group)]
        if call.way == "coalesced":
            dims = [0] * len(call.given)
            return functional.reduce_scatter_tensor_coalesced(
                call.given, call.word, dims, call.group
            )
        if call.way == "list":
            work = dist.reduce_scatter(
                call.taken[0], call.given, call.op, call.group, async_op=call.is_async
            )
        else:
            work = dist.reduce_scatter_tensor(
                call.taken[0], call.given[0], call.op, call.group, async_op=call.is_async
            )
        if work is not None:
            work.wait()
        return None
