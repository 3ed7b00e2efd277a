"""Every member gets what all members have, in their order."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as functional

from distparity.core.known_limit import Limit
from distparity.operations.base import Exact
from distparity.operations.collectives.base import (
    NONCONTIGUOUS,
    Call,
    Collective,
    Exchange,
    Shape,
    exactly,
)


class AllGather(Collective):
    ways = (
        *("list", "tensor", "functional", "coalesced"),
        *("functional_scalar", "coalesced_scalar", NONCONTIGUOUS),
    )
    apart = {  # noqa: RUF012
        "functional_scalar": ("functional", "0-d"),
        "coalesced_scalar": ("coalesced", "0-d"),
    }
    ordered = True
    limits = (
        *Collective.limits,
        Limit(
            fact="a result of one dim of inputs of none",
            answer=r"invalid (tensor size|size of output tensor)",
            feature="0-d",
        ),
        Limit(
            fact="a result with a dim of its own for the ranks",
            answer=r"invalid tensor size",
            feature="stacked",
        ),
        Limit(
            fact="tensors with gaps in memory",
            # Up to 2.8 it asserts without a word.
            answer=r"AssertionError: ($|Tensor must be contiguous)",
            before=(2, 13),
            feature="strided",
        ),
        Limit(
            fact="tensors whose first dim is not the slowest in memory",
            answer=r"AssertionError: ($|Tensor must be contiguous)",
            before=(2, 13),
            feature="transposed",
        ),
    )

    def specials(self, way: str) -> tuple[str, ...]:
        return {
            "list": ("async", "uneven"),
            "tensor": ("async", "stacked"),
            "functional": ("dim 1",),
        }.get(way, ())

    def given_by(self, check: Exchange, me: int, count: int) -> list[Shape]:
        if check.setting.special == "uneven":
            return [(me + 2, 5)]
        shape = check.setting.shape
        return [shape, (3,)] if check.way == "coalesced" else [shape]

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        if check.way == "list":
            return [exactly(tensor) for (tensor,) in given]
        dim = 1 if check.setting.special == "dim 1" else 0
        join = torch.stack if check.setting.special == "stacked" else torch.cat
        return [exactly(join(_at_least_1d(parts), dim)) for parts in zip(*given, strict=True)]

    def call(self, call: Call) -> list[torch.Tensor] | None:
        if call.way == "functional":
            dim = 1 if call.setting.special == "dim 1" else 0
            return [functional.all_gather_tensor(call.given[0], dim, call.group)]
        if call.way == "coalesced":
            return functional.all_gather_into_tensor_coalesced(call.given, call.group)
        if call.way == "list":
            work = dist.all_gather(call.taken, call.given[0], call.group, async_op=call.is_async)
        else:
            work = dist.all_gather_into_tensor(
                call.taken[0], call.given[0], call.group, async_op=call.is_async
            )
        if work is not None:
            work.wait()
        return None


def _at_least_1d(parts: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [part.reshape(1) if not part.shape else part for part in parts]
