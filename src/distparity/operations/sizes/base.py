"""Collectives over sizes: right from one element to as much as a device holds?

A backend changes its algorithm with the size of a message: one chunk or many, tree or ring. Every
element says where it came from (:func:`origin`), in whole numbers that every dtype represents, also when
they are reduced. So every result must be equal bit for bit, and what is wrong can be told apart: a block
of another rank, an element of another place, memory that was never written. All of it is computed and
compared on the device, block by block, and the judge is told the outcome.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist

from distparity.core import processes
from distparity.core.record import Record
from distparity.operations import arithmetic
from distparity.operations.base import Check, Judged, Operation, Request, Site, Tensors
from distparity.operations.collectives.base import Collective
from distparity.torch_support import private
from distparity.verification.findings import Divergence, Quantity

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

__all__ = ["OverSizes", "Sweep", "divided", "elements", "origin"]

#: Elements that are made or compared at once, with a few bytes of arithmetic for each.
BLOCK = 1 << 22
#: Numbers of :func:`origin` that are kept, one byte each; the numbers of later places are made again.
TABLE = 1 << 27
#: Calls that are in flight at once in the way ``async``.
FLIGHT = 3
#: Beyond two to this power of elements, a few sizes are enough where not every one is called.
LARGE = 16
#: In dtypes but the first, reductions but the first are called up to this part of the largest size.
REST = 8
#: Ways to be wrong that a rank tells.
MOST = 5
#: Elements that are looked at to say what a wrong result is.
LOOK = 64
#: No input has it: what is in a result that was never written.
UNWRITTEN = 127
#: The largest message on one rank unless the user says otherwise: on the CPU, and elsewhere, where it is
#: at most this part of the device's free memory.
LARGEST, ELSEWHERE, PART = 64 << 20, 1 << 30, 32
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def elements(most: int, ranks: int, *, every: bool = True) -> Iterator[int]:
    """Numbers of elements up to ``most``: powers of two, and around each.

    One less and one more, and one that is a multiple neither of 16 bytes nor of the ranks. Without
    ``every``, one of the four for each power, in turn, and ``most``; of the large powers, every third.
    """
    found = {most} if most else set()
    for power in range(most.bit_length()):
        if not every and power > LARGE and (most.bit_length() - power) % 3:
            continue
        size = 1 << power
        odd = size + 3 if (size + 3) % ranks else size + 5
        around = [size - 1, size, size + 1, odd]
        found |= {n for n in (around if every else around[power % 4 :][:1]) if 1 <= n <= most}
    yield from sorted(found)


def modulus(dtype: torch.dtype, ranks: int, op: str | None) -> int:
    """The numbers of :func:`origin` are below it, so that the dtype represents their reductions."""
    small = dtype in (torch.uint8, torch.int8)
    largest = 126 if small else 256 if dtype is torch.bfloat16 else 2048
    if op in ("SUM", "AVG"):
        return max(2, min(251, largest // ranks) - 1)
    return 125 if small else 250


def origin(rank: int, places: torch.Tensor, mod: int) -> torch.Tensor:
    """What ``rank`` has at these places (int64): another number for each rank, place and block of them."""
    # A shift by a multiple of the modulus, or by a power of two, changes the numbers.
    return (places + 3 * (places // mod) + 5 * (places // 65_521) + 29 * rank) % mod


_REDUCE: dict[str, Callable[..., torch.Tensor]] = {
    "SUM": torch.add,
    "AVG": torch.add,
    "PRODUCT": torch.mul,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "BAND": torch.bitwise_and,
    "BOR": torch.bitwise_or,
    "BXOR": torch.bitwise_xor,
}


class Numbers:
    """What ranks have at any places: the numbers of rank 0 are made once, and kept, one byte each.

    Another rank's number, and any reduction of some ranks', is a function of rank 0's, so it is looked
    up. In arithmetic on each element, it took most of a sweep's time.
    """

    def __init__(self, mod: int, device: torch.device) -> None:
        self.mod, self.device = mod, device
        self._table = torch.empty(0, dtype=torch.uint8, device=device)
        self._known: dict[tuple[Any, ...], torch.Tensor] = {}

    def __call__(
        self,
        ranks: Sequence[int],
        start: int,
        length: int,
        op: str | None,
        dtype: torch.dtype,
        asked: str | None,
    ) -> torch.Tensor:
        """The reduction ``op`` of what ``ranks`` have from ``start`` on: ``[length]``, exact in ``dtype``.

        ``asked`` is the reduction that is called, for which ranks have their numbers.
        """
        key = (*ranks, op, dtype, asked)
        if key not in self._known:
            self._known[key] = self._by_number(ranks, op, asked).to(dtype).to(self.device)
        return self._known[key].index_select(0, self._of_rank_0(start, length).int())

    def _by_number(self, ranks: Sequence[int], op: str | None, asked: str | None) -> torch.Tensor:
        """The reduction for each number that rank 0 can have: ``[mod]``."""
        first, *others = (
            (torch.arange(self.mod, device="cpu") + 29 * rank) % self.mod for rank in ranks
        )
        if asked == "PRODUCT":
            # Of factors 1 and 2, so that products are exact.
            first, *others = (1 + (each % 5 < 2).long() for each in (first, *others))
        found = functools.reduce(_REDUCE[op or "SUM"], others, first)
        return found.double() / len(ranks) if op == "AVG" else found

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


#: By modulus and device, for all sweeps of a process.
_NUMBERS: dict[tuple[int, torch.device], Numbers] = {}


def numbers(mod: int, device: torch.device) -> Numbers:
    return _NUMBERS.setdefault((mod, device), Numbers(mod, device))


@dataclass(frozen=True)
class Wrong(Record):
    """One way in which results were wrong: the first size at which they were, and how."""

    size: int
    #: What the wrong elements look like, and a text with this and more.
    looks: str
    message: str


@dataclass(frozen=True)
class Measured(Record):
    """What one rank saw. Sizes are bytes of the larger of input and result on one rank."""

    sizes: int = 0
    #: The largest size that was right; 0 if there was none.
    right: int = 0
    #: The ways in which sizes were wrong, with different looks, by size.
    wrong: tuple[Wrong, ...] = ()
    #: Bytes per second on the busiest link at the largest size, as nccl-tests counts them.
    bandwidth: float = 0.0

    def to_tensor(self) -> torch.Tensor:
        """The record as bytes: results of checks are tensors."""
        return torch.frombuffer(bytearray(json.dumps(self.to_json()).encode()), dtype=torch.uint8)

    @classmethod
    def of_tensor(cls, made: torch.Tensor) -> Measured:
        """Raises ValueError if these are no bytes of a record."""
        return cls.from_json(json.loads(bytes(made.tolist())))


class OverSizes(Operation):
    """One collective over sizes. A subclass makes the call, and says where each block comes from."""

    selection = "sizes"
    patience = 10
    # Bandwidth is measured while nothing else runs.
    alone = True
    ways: ClassVar[tuple[str, ...]] = ("wait", "async", "groups")
    dtypes = ("float32", "float64", "bfloat16", "float16", "int64", "int32", "uint8", "int8")
    limits = Collective.limits

    #: Blocks of the input and of the result; None for one block per rank.
    gives: ClassVar[int | None] = 1
    gets: ClassVar[int | None] = 1
    reduces: ClassVar[bool] = False
    #: Whether a rank gets from each of the others the block with its own number; otherwise block 0.
    parted: ClassVar[bool] = False
    #: Whether one rank, the first of the group, gives or gets what the others do not.
    rooted: ClassVar[bool] = False
    #: Whether only that rank gets anything.
    to_root: ClassVar[bool] = False
    #: How often the bytes of all blocks but one pass a rank's busiest link.
    passes: ClassVar[int] = 1

    def dtypes_of(self, way: str) -> tuple[str, ...]:
        return self.dtypes if way == "wait" else self.dtypes[:1]

    def checks(self, request: Request) -> Iterator[Check]:
        first = request.dtype is torch.float32
        for number, op in enumerate(self._ops(request) if self.reduces else [None]):
            part = 1 if first or number == 0 else REST
            yield Sweep(self, request, op, every=first and number == 0, part=part)

    def _ops(self, request: Request) -> list[str]:
        if request.way != "wait":
            return ["SUM"]
        found = arithmetic.ops(request.dtype, request.ranks)
        # The mean of whole numbers is exact in floating point if it divides by a power of two; a
        # product of factors 2 as long as the dtype has it.
        power = request.ranks & (request.ranks - 1) == 0
        small = request.dtype in (torch.uint8, torch.int8)
        fit = {
            "AVG": request.dtype.is_floating_point and power,
            "PRODUCT": request.ranks <= (6 if small else 15),
        }
        return [op for op in found if fit.get(op, True)]

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        """Begin one call, and return its work, or several; None if it is done."""
        raise NotImplementedError

    def in_place(self, given: torch.Tensor, taken: torch.Tensor, me: int) -> tuple[Any, Any]:
        """The input and the result in memory that they share, for the way ``in_place``."""
        raise NotImplementedError

    def source(self, me: int, block: int, ranks: int) -> tuple[Sequence[int], int]:
        """For a block of the result of rank ``me``: the ranks it comes from, and the block of theirs."""
        return range(ranks) if self.reduces else [block], me if self.parted else 0

    def has_result(self, me: int) -> bool:
        """Whether the rank ``me`` of a group gets anything."""
        return not self.to_root or me == 0

    def bandwidth(self, total: int, ranks: int, seconds: float) -> float:
        """Bytes per second on the busiest link, if a rank has ``total`` bytes."""
        whole = self.gives == self.gets and not self.parted and (self.rooted or not self.reduces)
        part = 1.0 if whole else (ranks - 1) / ranks
        return total * self.passes * part / seconds


def divided(whole: torch.Tensor, group: Any) -> tuple[int, list[torch.Tensor] | None]:
    """The root of a group, its first rank, and there the blocks of ``whole``; None on the other ranks."""
    ranks = dist.get_process_group_ranks(group)
    return ranks[0], list(whole.chunk(len(ranks))) if dist.get_rank() == ranks[0] else None


def _largest(context: RankContext) -> int:
    """The largest message on one rank in bytes, the same on all ranks."""
    if context.device.type == "cpu":
        return LARGEST
    free = context.kind.free_memory()
    mine = ELSEWHERE if free is None else min(ELSEWHERE, free // PART)
    # Through the store: collectives are what is asked here.
    store: Any = private.default_store()
    name = f"distparity/largest/{next(_ASKED)}"
    store.set(f"{name}/{context.rank}", str(mine))
    return min(int(store.get(f"{name}/{rank}")) for rank in range(context.world_size))


#: Numbers of questions; all ranks of a world have the same tasks, so their numbers are equal.
_ASKED = itertools.count()


class Sweep(Check):
    """One reduction, or the one exchange, of a collective over all sizes."""

    def __init__(
        self, kind: OverSizes, request: Request, op: str | None, *, every: bool, part: int = 1
    ) -> None:
        self.kind, self.request, self.op, self.every, self.part = kind, request, op, every, part
        self.name = op or "exchange"
        self.features = () if op is None else (op,)

    def partners(self, rank: int) -> range:
        return range(self.request.ranks)

    def run(self, site: Site) -> Tensors:
        ranks = self.request.ranks
        blocks = max(self.kind.gives or ranks, self.kind.gets or ranks)
        size = torch.empty((), dtype=self.request.dtype).element_size()
        largest = (self.request.largest or _largest(site.context)) // self.part
        if site.context.device.type == "cpu":
            # Otherwise the kernel clears every message anew, which takes half of the time.
            processes.keep_freed_memory()
        found = Measured()
        for count in elements(largest // size // blocks, ranks, every=self.every):
            total = count * blocks * size
            one = Calls(site, self, count, total)
            try:
                seconds = one.run()
            except Exception as error:
                if found.sizes:
                    error.args = (f"{error} (at {total} bytes)",)
                raise
            found = replace(found, sizes=found.sizes + 1)
            if one.wrong is None:
                found = replace(found, right=total)
            elif one.wrong.looks not in [known.looks for known in found.wrong]:
                found = replace(found, wrong=(*found.wrong, one.wrong)[:MOST])
            found = replace(found, bandwidth=self.kind.bandwidth(total, ranks, seconds))
        return {"measured": found.to_tensor()}

    def judged(self, every: Sequence[Mapping[str, torch.Tensor | None]]) -> Judged:
        each: list[Measured] = []
        wrong: list[Divergence] = []
        for rank, own in enumerate(every):
            made = own.get("measured")
            try:
                each.append(Measured() if made is None else Measured.of_tensor(made))
            except (ValueError, KeyError, TypeError):
                each.append(Measured())
            one = each[-1]
            for some in one.wrong:
                where = Quantity(None, self.name, f"{some.size} bytes")
                wrong.append(Divergence(where, rank, some.message))
            if not one.sizes or one.sizes != each[0].sizes:
                where = Quantity(None, self.name, "the sizes")
                wrong.append(Divergence(where, rank, f"{one.sizes} sizes were called"))
        # A size is right if it is right on all ranks, and as fast as on the slowest.
        right, speed = (min(one.right for one in each), min(one.bandwidth for one in each))
        first = min((some.size for one in each for some in one.wrong), default=0)
        from_ = f", wrong from {_bytes(first)}" if first else ""
        told = f"{each[0].sizes} sizes, right to {_bytes(right)}{from_}, {speed / 1e9:.3g} GB/s"
        return Judged(wrong, told, right, speed)


def _bytes(count: int) -> str:
    for unit, size in reversed(_UNITS.items()):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} B"


def _alike(found: torch.Tensor, other: torch.Tensor, ranks: int) -> bool:
    """Whether these are equal; up to rounding, because only the reduction that is asked has to be exact."""
    if not found.is_floating_point():
        return found.equal(other)
    return torch.allclose(found, other, rtol=ranks * torch.finfo(found.dtype).eps, atol=0.0)


class Calls:
    """The calls of a sweep with one size, in one rank."""

    def __init__(self, site: Site, sweep: Sweep, count: int, total: int) -> None:
        self.site, self.context, self.count, self.total = site, site.context, count, total
        self.kind, self.op, self.dtype = sweep.kind, sweep.op, sweep.request.dtype
        self.way = sweep.request.way
        # Other rounds have other numbers.
        self.shift = sweep.request.seed % 9973
        self.wrong: Wrong | None = None

    def run(self) -> float:
        """Make the calls and compare; returns the seconds of one call."""
        made = list(self._made())
        self.context.kind.synchronize()
        op = None if self.op is None else getattr(dist.ReduceOp, self.op)
        later = self.way in ("async", "groups")
        began = time.perf_counter()
        works = [
            self.kind.call(given, taken, op, group, later) for group, _, _, given, taken in made
        ]
        for some in works:
            for work in some if isinstance(some, list) else [some]:
                if work is not None:
                    work.wait()
        self.context.kind.synchronize()
        seconds = (time.perf_counter() - began) / len(made)
        for _, ranks, number, _, taken in made:
            if self.site.fault is not None:
                self.site.fault.swept(taken)
            if self.wrong is None and self.kind.has_result(ranks.index(self.context.rank)):
                self.wrong = self._compare(taken, ranks, number)
        return seconds

    def _made(self) -> Iterator[tuple[Any, list[int], int, torch.Tensor, torch.Tensor]]:
        """For each call of this rank: the group, its ranks, a number, the input and the result's memory."""
        teams = ["world"]
        if self.way == "groups":
            even = self.context.world_size % 2 == 0
            teams = ["mesh row", "mesh column"] if even else ["world", "all but rank 0"]
        for team in teams:
            group = self.site.group(team)
            if group is None:
                continue
            ranks = dist.get_process_group_ranks(group)
            for number in range(self._times()):
                given = self._filled(ranks, number, self.kind.gives or len(ranks))
                length = self.count * (self.kind.gets or len(ranks))
                taken = torch.full(
                    (length,), UNWRITTEN, dtype=self.dtype, device=self.context.device
                )
                if self.way == "in_place":
                    given, taken = self.kind.in_place(given, taken, ranks.index(self.context.rank))
                yield group, ranks, number, given, taken

    def _times(self) -> int:
        return FLIGHT if self.way == "async" else 1

    def _mod(self, ranks: Sequence[int]) -> int:
        return modulus(self.dtype, len(ranks), self.op)

    def _filled(self, ranks: Sequence[int], number: int, blocks: int) -> torch.Tensor:
        """This rank's input: where it is from, and from which of the calls."""
        found = torch.empty(self.count * blocks, dtype=self.dtype, device=self.context.device)
        me = ranks.index(self.context.rank)
        for start in range(0, len(found), BLOCK):
            part = found[start : start + BLOCK]
            part.copy_(self._numbers([me], ranks, start, len(part), number))
        return found

    def _numbers(
        self,
        sources: Sequence[int],
        ranks: Sequence[int],
        start: int,
        length: int,
        number: int,
        op: str | None = None,
    ) -> torch.Tensor:
        # Other calls in flight have other numbers at the same place.
        made, start = (
            numbers(self._mod(ranks), self.context.device),
            start + 11 * number + self.shift,
        )
        return made(sources, start, length, op or self.op, self.dtype, self.op)

    def _expected(
        self,
        ranks: Sequence[int],
        block: int,
        start: int,
        length: int,
        number: int,
        op: str | None = None,
    ) -> torch.Tensor:
        """A part of a block of this rank's right result, or of what another reduction gives."""
        me = ranks.index(self.context.rank)
        sources, theirs = self.kind.source(me, block, len(ranks))
        start += theirs * self.count
        return self._numbers(sources, ranks, start, length, number, op)

    def _parts(self, ranks: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """The result in pieces: a block, and the piece's start and length in it."""
        for block in range(self.kind.gets or len(ranks)):
            for start in range(0, self.count, BLOCK):
                yield block, start, min(BLOCK, self.count - start)

    def _compare(self, taken: torch.Tensor, ranks: Sequence[int], number: int) -> Wrong | None:
        for block, start, length in self._parts(ranks):
            first = block * self.count + start
            part = taken[first : first + length]
            right = self._expected(ranks, block, start, length, number)
            bad = part != right
            if bool(bad.any()):
                at = int(bad.int().argmax())
                looks = self._looks(taken, block, start + at, ranks, number)
                text = (
                    f"{int(bad.sum())} elements from {first + at} of {len(taken)} are wrong, "
                    f"the first is {part[at].item()} and not {right[at].item()}: {looks}"
                )
                return Wrong(self.total, looks, text)
        return None

    def _looks(
        self, taken: torch.Tensor, block: int, place: int, ranks: Sequence[int], number: int
    ) -> str:
        """What the wrong elements from one of a block on look like."""
        first = block * self.count + place
        look = taken[first : (block + 1) * self.count][:LOOK]
        if look.equal(torch.full_like(look, UNWRITTEN)):
            return "never written"
        for op in _REDUCE if self.op else ():
            if _alike(look, self._expected(ranks, block, place, len(look), number, op), len(ranks)):
                whole = all(
                    _alike(
                        taken[b * self.count + start :][:length],
                        self._expected(ranks, b, start, length, number, op),
                        len(ranks),
                    )
                    for b, start, length in self._parts(ranks)
                )
                return f"that is the {op} of all ranks" + ("" if whole else ", but not everywhere")
        for theirs in range(len(ranks)):
            for rank in range(len(ranks)):
                start = theirs * self.count + place
                if look.equal(self._numbers([rank], ranks, start, len(look), number)):
                    return f"that is block {theirs} of rank {ranks[rank]}'s input"
        return "neither of one rank nor unwritten"
