"""The base class of collectives: every rank's input, its right result, and the call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.distributed as dist

from distparity.core.known_limit import Limit
from distparity.operations import arithmetic
from distparity.operations.arithmetic import draw, wide
from distparity.operations.base import (
    Check,
    Exact,
    Operation,
    Request,
    Site,
    Tensors,
    members,
    seeded,
    teams,
)
from distparity.operations.buffers import Buffer, rubbish

__all__ = ["NONCONTIGUOUS", "Call", "Collective", "Done", "Exchange", "Setting", "Shape", "exactly"]

#: The way that calls a collective as its first way does, but with other memory layouts. It is a case
#: of its own, because a backend that gets those wrong may be right otherwise.
NONCONTIGUOUS = "noncontiguous"

Shape = tuple[int, ...]

#: How gloo, functional collectives and NCCL refuse tensors with gaps.
_GAPS = (
    r"(has to|must) be contiguous|is_contiguous\(\) to be true"
    r"|Tensors must be (contiguous|non-overlapping and dense)"
)
#: Enough elements for a backend to cut a tensor into segments.
_LARGE = (20_011,)
_SHAPES: dict[str, Shape] = {"0-d": (), "one element": (1,), "empty": (0, 3), "large": _LARGE}


@dataclass(frozen=True)
class Setting:
    """The properties that checks vary; the check's name has each one that is not the default."""

    op: str | None = None
    team: str = "world"
    layout: str = "contiguous"
    shape: Shape = (8, 15)
    #: The name of the shape, if it is not the usual one.
    size: str = ""
    #: Other special properties, in the collective's own words: ``uneven``, ``async``, ``dim 1``.
    special: str = ""
    #: The group rank of the root, for collectives that have one.
    root: int | None = None

    @property
    def name(self) -> str:
        root = "" if self.root is None else f"root {self.root}"
        team = "" if self.team == "world" else self.team
        layout = "" if self.layout == "contiguous" else self.layout
        words = (self.op or "", root, team, layout, self.size, self.special)
        return ", ".join(filter(None, words)) or "plain"


@dataclass
class Done:
    """A finished call in one rank; ``before`` has the results' memory from before the call."""

    check: Exchange
    rank: int
    results: list[torch.Tensor]
    before: list[torch.Tensor]
    given: list[Buffer]
    #: The buffers of the results, if the way writes into buffers.
    places: list[Buffer]


@dataclass
class Call:
    """One call in one rank: its inputs, the buffers for results, and its group."""

    way: str
    setting: Setting
    group: dist.ProcessGroup
    #: Ranks of the whole world, in the order of their ranks in the group.
    team: list[int]
    #: This rank's rank in the group.
    me: int
    given: list[torch.Tensor]
    taken: list[torch.Tensor]

    @property
    def op(self) -> Any:
        return getattr(dist.ReduceOp, self.setting.op or "SUM")

    @property
    def word(self) -> str:
        """The reduction's name in the functional collectives."""
        return (self.setting.op or "SUM").lower()

    @property
    def root(self) -> int:
        """The root's rank in the world, which torch requires."""
        assert self.setting.root is not None
        return self.team[self.setting.root]

    @property
    def is_root(self) -> bool:
        return self.setting.root == self.me

    @property
    def is_async(self) -> bool:
        return self.setting.special == "async"


class Collective(Operation):
    """One collective. A subclass defines the inputs and the right results, and makes the call."""

    dtypes = ("float32", "float64", "bfloat16", "float16", "int64", "uint8", "bool")
    #: Whether ranks' contributions are reduced, or only moved.
    reduces: ClassVar[bool] = False
    #: Whether there is a root, and its role: ``giver`` or ``getter``.
    rooted: ClassVar[str | None] = None
    #: Whether a result is made of parts from all members, in their order.
    ordered: ClassVar[bool] = False
    #: Whether every member gets a different part.
    parted: ClassVar[bool] = False
    #: Whether what a rank is refused to send is its own matter, which others wait for.
    one_sided: ClassVar[bool] = False
    #: Ways whose results are new tensors.
    returning: ClassVar[tuple[str, ...]] = ("functional", "coalesced")
    #: Ways that write results into the inputs.
    in_place: ClassVar[tuple[str, ...]] = ()
    #: Ways with a single check that may crash a backend, so that the crash hides no other check: the
    #: way to call the collective, and the size or special word of that check.
    apart: ClassVar[dict[str, tuple[str, str]]] = {}
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="the mean of integers",
            answer=r"can't be cast to the desired output type",
            feature="AVG",
        ),
        Limit(
            fact="the mean on this backend",
            answer=r"Cannot use ReduceOp.AVG with Gloo",
            before=(2, 8),
            feature="AVG",
        ),
        Limit(fact="the mean of booleans", answer=r"AVG with boolean inputs", feature="AVG"),
        *(
            Limit(
                fact="bitwise reductions on this backend",
                answer=r"Cannot use ReduceOp\.B\w+ with [NX]CCL",
                feature=feature,
            )
            for feature in ("BAND", "BOR", "BXOR")
        ),
        Limit(
            fact="this collective on this backend",
            answer=r"does not support (reduce_scatter|alltoall)$",
            before=(2, 13),
        ),
        Limit(
            fact="tensors of other sizes on other ranks",
            answer=r"invalid tensor size",
            feature="uneven",
        ),
        Limit(
            fact="tensors with gaps in memory",
            answer=_GAPS,
            feature="strided",
        ),
        Limit(
            fact="tensors whose first dim is not the slowest in memory",
            answer=_GAPS,
            feature="transposed",
        ),
    )

    def dtypes_of(self, way: str) -> tuple[str, ...]:
        # Memory layouts need only one reduction and one dtype.
        if way == NONCONTIGUOUS or way in self.apart:
            return ("float32",)
        # Without a reduction only bytes move: one dtype of each size is enough.
        return (*self.dtypes, "int32", "int8") if self.reduces else self.dtypes

    def called(self, way: str) -> str:
        """The way to call it, for a way that only has other tensors."""
        return self.ways[0] if way == NONCONTIGUOUS else self.apart.get(way, (way, ""))[0]

    def given(self, check: Exchange, shape: Shape, count: int) -> list[Shape]:
        """The shapes of a member's inputs, in a group of ``count`` ranks."""
        return [shape]

    def given_by(self, check: Exchange, me: int, count: int) -> list[Shape]:
        """The shapes of the inputs of member ``me``, if they depend on the member."""
        return self.given(check, check.setting.shape, count)

    def expect(self, check: Exchange, me: int, given: list[list[torch.Tensor]]) -> list[Exact]:
        """The right results of member ``me`` for the members' inputs; empty if it gets nothing."""
        raise NotImplementedError

    def call(self, call: Call) -> list[torch.Tensor] | None:
        """Call it; returns the results of ways that return them."""
        raise NotImplementedError

    def specials(self, way: str) -> tuple[str, ...]:
        return ()

    def checks(self, request: Request) -> Iterator[Check]:
        for setting in self.settings(request):
            yield Exchange(self, request, setting)

    def settings(self, request: Request) -> Iterator[Setting]:
        """The variations of a way's case, without those that are cases of their own."""
        way, only = self.apart.get(request.way, (request.way, ""))
        gone = {word for called, word in self.apart.values() if called == way}
        for setting in self._settings(replace(request, way=way)):
            words = {setting.size, setting.special}
            if only in words if only else gone.isdisjoint(words):
                yield setting

    def _settings(self, request: Request) -> Iterator[Setting]:
        """Vary each property alone, starting from a plain call; groups with every kind of team."""
        base = Setting(op="SUM" if self.reduces else None, root=0 if self.rooted else None)
        if request.way == NONCONTIGUOUS or request.way in self.returning:
            for layout in ("strided", "transposed"):
                yield replace(base, layout=layout)
        if request.way != NONCONTIGUOUS:
            yield from self._contiguous(base, request)

    def _contiguous(self, base: Setting, request: Request) -> Iterator[Setting]:
        yield base
        if self.reduces:
            for op in arithmetic.ops(request.dtype, request.ranks):
                if op != "SUM":
                    yield replace(base, op=op)
        if self.rooted:
            for root in range(1, request.ranks):
                yield replace(base, root=root)
        for size, shape in _SHAPES.items():
            yield replace(base, shape=shape, size=size)
        for special in self.specials(request.way):
            yield replace(base, special=special)
        for team in teams(request.ranks):
            yield from self._in_team(base, team, request)

    def _in_team(self, base: Setting, team: str, request: Request) -> Iterator[Setting]:
        last = len(members(team, request.ranks)[0]) - 1
        setting = replace(base, team=team, root=last if self.rooted else None)
        yield setting
        if self.reduces and "AVG" in arithmetic.ops(request.dtype, request.ranks):
            yield replace(setting, op="AVG")


class Exchange(Check):
    """One call of a collective, with distinct data on every rank."""

    def __init__(self, collective: Collective, request: Request, setting: Setting) -> None:
        self.collective = collective
        self.request = request
        self.setting = setting
        self.name = setting.name
        self.way = collective.called(request.way)
        words = (setting.op, setting.layout, setting.size, setting.special, request.way)
        self.features = tuple(word for word in words if word)
        self._given: dict[int, list[torch.Tensor]] = {}
        self._gets: dict[int, list[Exact]] = {}

    # -- the data ------------------------------------------------------------------------------

    def team(self, rank: int) -> list[int]:
        """The members of ``rank``'s group; empty if it is in none."""
        groups = members(self.setting.team, self.request.ranks)
        return next((group for group in groups if rank in group), [])

    def gives(self, rank: int) -> list[torch.Tensor]:
        """The inputs of ``rank``."""
        if rank not in self._given:
            team = self.team(rank)
            generator = seeded(self.request.seed, self.name, rank)
            shapes = self.collective.given_by(self, team.index(rank), len(team))
            self._given[rank] = [
                draw(generator, shape, self.request.dtype, self.setting.op, len(team))
                for shape in shapes
            ]
        return self._given[rank]

    def gets(self, rank: int) -> list[Exact]:
        """The right results of ``rank``."""
        if rank not in self._gets:
            team = self.team(rank)
            given = [self.gives(member) for member in team]
            self._gets[rank] = self.collective.expect(self, team.index(rank), given) if team else []
        return self._gets[rank]

    @property
    def is_in_place(self) -> bool:
        return self.way in self.collective.in_place

    @property
    def returns(self) -> bool:
        return self.way in self.collective.returning

    def partners(self, rank: int) -> list[int]:
        return self.team(rank)

    # -- in a rank -----------------------------------------------------------------------------

    def run(self, site: Site) -> Tensors:
        group = site.group(self.setting.team)
        if group is None:
            return {}
        team = self.team(site.rank)
        giver = site.rank if site.fault is None else site.fault.giver(team, site.rank)
        given = [self._buffer(site, value) for value in self.gives(giver)]
        taken = [] if self.is_in_place else self._taken(site)
        call = Call(
            self.way,
            self.setting,
            group,
            team,
            team.index(site.rank),
            [buffer.view for buffer in given],
            [buffer.view for buffer in taken],
        )
        places = given if self.is_in_place else taken
        before = [buffer.view.clone() for buffer in places]
        results = self._results(self.collective.call(call), places, site.rank)
        if site.fault is not None:
            old = before[: len(results)] or self._rubbish(results)
            site.fault.after(Done(self, site.rank, results, old, given, places))
        return self._record(results, given, taken)

    def _buffer(self, site: Site, value: torch.Tensor) -> Buffer:
        shape = tuple(value.shape)
        return Buffer(shape, value.dtype, self.setting.layout, site.context.device, value)

    def _taken(self, site: Site) -> list[Buffer]:
        if self.returns:
            return []
        return [
            Buffer(tuple(e.value.shape), e.dtype, self.setting.layout, site.context.device)
            for e in self.gets(site.rank)
        ]

    def _results(
        self, returned: list[torch.Tensor] | None, places: list[Buffer], rank: int
    ) -> list[torch.Tensor]:
        if not self.gets(rank):
            return []
        # A functional result may be an AsyncCollectiveTensor, which waits at its first use.
        found = [buffer.view for buffer in places] if returned is None else returned
        return [tensor.contiguous().clone() if self.returns else tensor for tensor in found]

    def _rubbish(self, results: list[torch.Tensor]) -> list[torch.Tensor]:
        return [rubbish(tuple(r.shape), r.dtype).to(r.device) for r in results]

    def _record(
        self, results: list[torch.Tensor], given: list[Buffer], taken: list[Buffer]
    ) -> Tensors:
        found = {f"result {n}": tensor.cpu() for n, tensor in enumerate(results)}
        for n, buffer in enumerate(taken):
            found[f"memory around result {n}"] = buffer.around()
        for n, buffer in enumerate(given):
            if not self.is_in_place:
                found[f"input {n}"] = buffer.view.cpu()
            found[f"memory around input {n}"] = buffer.around()
        return found

    # -- in the judge --------------------------------------------------------------------------

    def expected(self, rank: int) -> dict[str, Exact]:
        if not self.team(rank):
            return {}
        results = self.gets(rank)
        found = {f"result {n}": exact for n, exact in enumerate(results)}
        if not (self.is_in_place or self.returns):
            for n, exact in enumerate(results):
                found[f"memory around result {n}"] = self._around(tuple(exact.value.shape))
        for n, value in enumerate(self.gives(rank)):
            if not self.is_in_place:
                found[f"input {n}"] = exactly(value)
            found[f"memory around input {n}"] = self._around(tuple(value.shape))
        return found

    def _around(self, shape: Shape) -> Exact:
        buffer = Buffer(shape, self.request.dtype, self.setting.layout, torch.device("cpu"))
        return exactly(buffer.around())


def exactly(value: torch.Tensor) -> Exact:
    """A value that must be equal bit for bit."""
    return Exact(wide(value), value.dtype)
