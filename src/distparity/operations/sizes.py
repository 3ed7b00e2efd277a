"""Collectives over sizes: right from one element to as much as a device holds?

A backend changes its algorithm with the size of a message: one chunk or many, tree or ring. Every
element says where it came from (:func:`origin`), in whole numbers that every dtype represents, also as
a sum. So every result must be equal bit for bit, and what is wrong can be told apart: a block of another
rank, an element of another place, memory that was never written. All of it is computed and compared on
the device, block by block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from distparity.core.sweep import Measured, Sweep
from distparity.devices.context import RankContext
from distparity.operations.base import Site

__all__ = ["OPERATIONS", "elements", "origin", "sweep"]

#: Elements that are made or compared at once, with a few bytes of arithmetic for each.
BLOCK = 1 << 22
#: Numbers of :func:`origin` that are kept, one byte each; the numbers of later places are made again.
TABLE = 1 << 27
#: Calls that are in flight at once in the way ``async``.
FLIGHT = 3
#: Elements that are looked at to say what a wrong result is.
LOOK = 64
#: No input has it: what is in a result that was never written.
UNWRITTEN = 127


def elements(most: int, ranks: int) -> Iterator[int]:
    """Numbers of elements up to ``most``: powers of two, and around each.

    One less and one more, and one that is a multiple neither of 16 bytes nor of the ranks.
    """
    size = 1
    while size <= most:
        odd = size + 3 if (size + 3) % ranks else size + 5
        yield from sorted({n for n in (size - 1, size, size + 1, odd) if 1 <= n <= most})
        size *= 2


def modulus(dtype: torch.dtype, ranks: int, op: str | None) -> int:
    """The numbers of :func:`origin` are below it, so that the dtype represents their reductions."""
    if dtype is torch.bool:
        return 2
    largest = {torch.uint8: 126, torch.int8: 126, torch.bfloat16: 256}.get(dtype, 2048)
    return max(2, min(251, largest // ranks if op == "SUM" else 126 if largest == 126 else 251) - 1)


def origin(rank: int, places: torch.Tensor, mod: int) -> torch.Tensor:
    """What ``rank`` has at these places (int64): another number for each rank, place and block of them."""
    # A shift by a multiple of the modulus, or by a power of two, changes the numbers.
    return (places + 3 * (places // mod) + 5 * (places // 65_521) + 29 * rank) % mod


class Numbers:
    """What ranks have at any places, in int16: the numbers of rank 0 are made once, and kept.

    In int64, arithmetic for each element took most of a sweep's time.
    """

    def __init__(self, mod: int, device: torch.device) -> None:
        self.mod, self.device = mod, device
        self._table = torch.empty(0, dtype=torch.uint8, device=device)

    def __call__(
        self, ranks: Sequence[int], start: int, length: int, op: str | None
    ) -> torch.Tensor:
        """The reduction ``op`` of what ``ranks`` have from ``start`` on: int16, ``[length]``."""
        base = self._of_rank_0(start, length).short()
        found = self._shifted(base, ranks[0])
        for rank in ranks[1:]:
            found = _REDUCE[op or "SUM"](found, self._shifted(base, rank))
        return found

    def _shifted(self, base: torch.Tensor, rank: int) -> torch.Tensor:
        by = 29 * rank % self.mod
        shifted = base + by
        return torch.where(shifted >= self.mod, shifted - self.mod, shifted) if by else shifted

    def _of_rank_0(self, start: int, length: int) -> torch.Tensor:
        stop = start + length
        if stop > TABLE:
            return self._made(start, stop)
        known = len(self._table)
        if stop > known:
            parts = [
                self._made(at, min(at + BLOCK, stop + BLOCK))
                for at in range(known, min(stop + BLOCK, TABLE), BLOCK)
            ]
            self._table = torch.cat([self._table, *parts])
        return self._table[start:stop]

    def _made(self, start: int, stop: int) -> torch.Tensor:
        places = torch.arange(start, stop, device=self.device)
        return origin(0, places, self.mod).to(torch.uint8)


_REDUCE: dict[str, Callable[..., torch.Tensor]] = {
    "SUM": torch.add,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
}

#: By modulus and device, for all sweeps of a process.
_NUMBERS: dict[tuple[int, torch.device], Numbers] = {}


def numbers(mod: int, device: torch.device) -> Numbers:
    return _NUMBERS.setdefault((mod, device), Numbers(mod, device))


@dataclass(frozen=True)
class _Kind:
    """One collective: how many blocks of ``n`` elements go in and come out, and where from."""

    call: Callable[[torch.Tensor, torch.Tensor, Any, bool], Any]
    #: Blocks of the input and of the result; None for one block per rank.
    gives: int | None
    gets: int | None
    #: The reduction over all ranks; None: block ``b`` of the result is from rank ``b``.
    op: str | None = None
    #: Whether a rank gets from each of the others the block with its own number; otherwise block 0.
    parted: bool = False
    #: How often the bytes of all blocks but one pass a rank's busiest link.
    passes: int = 1

    def source(self, me: int, block: int, ranks: int) -> tuple[Sequence[int], int]:
        """For a block of the result of rank ``me``: the ranks it comes from, and the block of theirs."""
        return range(ranks) if self.op else [block], me if self.parted else 0

    def bandwidth(self, total: int, ranks: int, seconds: float) -> float:
        """Bytes per second on the busiest link, if a rank has ``total`` bytes."""
        part = (ranks - 1) / ranks if self.gives != self.gets or self.parted or self.op else 1.0
        return total * self.passes * part / seconds


def _all_reduce(op: str) -> _Kind:
    def call(given: torch.Tensor, taken: torch.Tensor, group: Any, later: bool) -> Any:
        # In place, so the input is copied first.
        which = getattr(dist.ReduceOp, op)
        return dist.all_reduce(taken.copy_(given), which, group=group, async_op=later)

    return _Kind(call, 1, 1, op, passes=2)


def _reduce_scatter(op: str) -> _Kind:
    def call(given: torch.Tensor, taken: torch.Tensor, group: Any, later: bool) -> Any:
        which = getattr(dist.ReduceOp, op)
        return dist.reduce_scatter_tensor(taken, given, which, group=group, async_op=later)

    return _Kind(call, None, 1, op, parted=True)


def _broadcast(given: torch.Tensor, taken: torch.Tensor, group: Any, later: bool) -> Any:
    root = dist.get_process_group_ranks(group)[0]
    if dist.get_rank() == root:
        taken.copy_(given)
    return dist.broadcast(taken, root, group=group, async_op=later)


def _all_gather(given: torch.Tensor, taken: torch.Tensor, group: Any, later: bool) -> Any:
    return dist.all_gather_into_tensor(taken, given, group=group, async_op=later)


def _all_to_all(given: torch.Tensor, taken: torch.Tensor, group: Any, later: bool) -> Any:
    return dist.all_to_all_single(taken, given, group=group, async_op=later)


#: By name: an operation, with the reduction if it has one.
OPERATIONS: dict[str, _Kind] = {
    "all_reduce SUM": _all_reduce("SUM"),
    "all_reduce MAX": _all_reduce("MAX"),
    "reduce_scatter SUM": _reduce_scatter("SUM"),
    "reduce_scatter MIN": _reduce_scatter("MIN"),
    "all_gather": _Kind(_all_gather, 1, None),
    "all_to_all": _Kind(_all_to_all, None, None, parted=True),
    # The only block is the root's.
    "broadcast": _Kind(_broadcast, 1, 1),
}


def sweep(context: RankContext, asked: Sweep) -> Measured:
    """Run a sweep in this rank; all ranks of the world run it together."""
    kind, dtype = OPERATIONS[asked.operation], getattr(torch, asked.dtype)
    ranks = context.world_size
    blocks = max(kind.gives or ranks, kind.gets or ranks)
    size = torch.empty((), dtype=dtype).element_size()
    found = Measured()
    for count in elements(asked.largest // size // blocks, ranks):
        one = _One(context, kind, dtype, count)
        total = count * blocks * size
        try:
            seconds = one.run(asked.way)
        except Exception as error:
            # All ranks raise, or the ones that wait run into the time limit.
            text = (str(error).strip().splitlines() or [""])[0]
            return replace(found, raised=f"{total} bytes: {type(error).__name__}: {text}")
        found = replace(found, sizes=found.sizes + 1)
        if one.wrong is None:
            found = replace(found, right=total)
        elif not found.wrong:
            found = replace(found, wrong=total, message=one.wrong)
        if seconds:
            found = replace(found, bandwidth=kind.bandwidth(total, ranks, seconds))
    return found


class _One:
    """One size of a sweep in one rank."""

    def __init__(self, context: RankContext, kind: _Kind, dtype: torch.dtype, count: int) -> None:
        self.context, self.kind, self.dtype, self.count = context, kind, dtype, count
        self.wrong: str | None = None

    def run(self, way: str) -> float:
        """Make the calls and compare; returns the seconds of one call."""
        site = Site(self.context)
        # An odd world has no such groups, and is not asked: without any call, nothing could be wrong.
        teams = ["mesh row", "mesh column"] if way == "groups" else ["world"]
        calls = [(team, number) for team in teams for number in range(self._times(way))]
        made = []
        for team, number in calls:
            group = site.group(team)
            assert group is not None
            ranks = dist.get_process_group_ranks(group)
            given = self._filled(ranks, number, self.kind.gives or len(ranks))
            length = self.count * (self.kind.gets or len(ranks))
            taken = torch.full((length,), UNWRITTEN, device=self.context.device).to(self.dtype)
            made.append((group, ranks, number, given, taken))
        self.context.kind.synchronize()
        began = time.perf_counter()
        later = way != "wait"
        works = [self.kind.call(given, taken, group, later) for group, _, _, given, taken in made]
        for work in works:
            if work is not None:
                work.wait()
        self.context.kind.synchronize()
        seconds = (time.perf_counter() - began) / len(made)
        for _, ranks, number, _, taken in made:
            self.wrong = self.wrong or self._compare(taken, ranks, number)
        return seconds

    def _times(self, way: str) -> int:
        return FLIGHT if way == "async" else 1

    def _mod(self, ranks: Sequence[int]) -> int:
        return modulus(self.dtype, len(ranks), self.kind.op)

    def _filled(self, ranks: Sequence[int], number: int, blocks: int) -> torch.Tensor:
        """This rank's input: where it is from, and from which of the calls."""
        found = torch.empty(self.count * blocks, dtype=self.dtype, device=self.context.device)
        me = ranks.index(self.context.rank)
        for start in range(0, len(found), BLOCK):
            part = found[start : start + BLOCK]
            part.copy_(self._numbers([me], ranks, start, len(part), number, None))
        return found

    def _numbers(
        self,
        sources: Sequence[int],
        ranks: Sequence[int],
        start: int,
        length: int,
        number: int,
        op: str | None,
    ) -> torch.Tensor:
        # Other calls in flight have other numbers at the same place.
        made = numbers(self._mod(ranks), self.context.device)
        return made(sources, start + 11 * number, length, op)

    def _expected(
        self, ranks: Sequence[int], block: int, start: int, length: int, number: int
    ) -> torch.Tensor:
        """A part of a block of this rank's right result, in int16."""
        me = ranks.index(self.context.rank)
        sources, theirs = self.kind.source(me, block, len(ranks))
        start += theirs * self.count
        return self._numbers(sources, ranks, start, length, number, self.kind.op)

    def _compare(self, taken: torch.Tensor, ranks: Sequence[int], number: int) -> str | None:
        for block in range(self.kind.gets or len(ranks)):
            for start in range(0, self.count, BLOCK):
                length = min(BLOCK, self.count - start)
                first = block * self.count + start
                part = taken[first : first + length]
                right = self._expected(ranks, block, start, length, number)
                bad = part != right.to(self.dtype)
                if bool(bad.any()):
                    at = int(bad.int().argmax())
                    return self._say(
                        part[at:], right[at:], int(bad.sum()), first + at, block, ranks
                    )
        return None

    def _say(
        self,
        part: torch.Tensor,
        right: torch.Tensor,
        count: int,
        at: int,
        block: int,
        ranks: Sequence[int],
    ) -> str:
        look, place = part[:LOOK], at - block * self.count
        text = (
            f"rank {self.context.rank}: {count} elements from {at} of "
            f"{self.count * (self.kind.gets or len(ranks))} are wrong, the first is "
            f"{look[0].item()} and not {right[0].to(self.dtype).item()}"
        )
        return f"{text}: {self._looks(look, place, ranks)}"

    def _looks(self, look: torch.Tensor, place: int, ranks: Sequence[int]) -> str:
        """What the wrong elements look like."""
        blank = torch.full_like(look, UNWRITTEN) if self.dtype is not torch.bool else None
        if blank is not None and look.equal(blank):
            return "never written"
        if self.kind.op is not None:
            sources, theirs = self.kind.source(ranks.index(self.context.rank), 0, len(ranks))
            start = theirs * self.count + place
            for op in _REDUCE:
                found = self._numbers(sources, ranks, start, len(look), 0, op)
                if look.equal(found.to(self.dtype)):
                    return f"that is the {op} of all ranks"
        for theirs in range(len(ranks)):
            for rank in range(len(ranks)):
                start = theirs * self.count + place
                found = self._numbers([rank], ranks, start, len(look), 0, None)
                if look.equal(found.to(self.dtype)):
                    return f"that is block {theirs} of rank {ranks[rank]}'s input"
        return "neither of one rank nor unwritten"
