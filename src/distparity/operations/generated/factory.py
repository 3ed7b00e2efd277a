"""Distributed tensors that torch fills by itself: with a number, or with random ones.

Random numbers have no right values. What is held is what placements mean: replicas are equal, shards
are parts of one tensor and so not copies of each other, and numbers are in their range. Where torch warns
that it does not promise random numbers on this device, it is refused that shards are not copies.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional as F

from distparity.operations.arithmetic import wide
from distparity.operations.base import Check, Exact, Request, Site, Tensors
from distparity.operations.generated.guard import (
    MESHES,
    Generated,
    GuardedCheck,
    RaisedError,
    asked,
    control_of,
    mesh_of,
)
from distparity.operations.generated.placing import joined, part, placements

_NAME = "torch.distributed.tensor"
if importlib.util.find_spec(f"{_NAME}._api") is None:
    _NAME = "torch.distributed._tensor"  # before 2.5
distributed: Any = importlib.import_module(_NAME)

__all__ = ["Apart", "Factory"]

_SHAPES: tuple[tuple[int, ...], ...] = ((8, 6), (5, 3), (1, 6))
#: Shards of at most so many numbers may be alike by chance: those of bernoulli are 0 or 1.
_BY_CHANCE = 5
_TRUE = Exact(torch.tensor(True), torch.bool)
Fill = Callable[[torch.Tensor], torch.Tensor]
#: Factories of :mod:`torch.distributed.tensor`, by name: what else they take, and the number.
_NUMBERS: dict[str, tuple[tuple[Any, ...], float]] = {
    "ones": ((), 1.0),
    "zeros": ((), 0.0),
    "full": ((2.5,), 2.5),
}
_RANDOM = ("rand", "randn")
#: Functions of a distributed tensor of ones.
_FILLS: dict[str, Fill] = {
    "rand_like": torch.rand_like,
    "randn_like": torch.randn_like,
    "randint_like": lambda x: torch.randint_like(x, 0, 1 << 20),
    "bernoulli": lambda x: torch.bernoulli(x * 0.5),
    "bernoulli_": lambda x: x.bernoulli_(0.5),
    "uniform_": lambda x: x.uniform_(0.25, 0.75),
    "normal_": lambda x: x.normal_(),
    "dropout": lambda x: F.dropout(x, 0.5),
    "trunc_normal_": lambda x: torch.nn.init.trunc_normal_(x, 0, 1, -0.5, 0.5),
    "kaiming_uniform_": torch.nn.init.kaiming_uniform_,
}
#: By name: the smallest and the largest number.
_RANGES = {
    "rand": (0, 1),
    "rand_like": (0, 1),
    "randint_like": (0, 1 << 20),
    "bernoulli": (0, 1),
    "bernoulli_": (0, 1),
    "uniform_": (0.25, 0.75),
    "dropout": (0, 2),
    "trunc_normal_": (-0.5, 0.5),
}


class Factory(Generated):
    name = "factory"
    ways = (*_NUMBERS, *_RANDOM, *_FILLS)
    dtypes = ("float64",)
    worlds = tuple(MESHES)

    def checks(self, request: Request) -> Iterator[Check]:
        for mesh in MESHES[request.ranks]:
            for shape in _SHAPES:
                hows = ("R", "S0", "S1") if mesh != "2x2" else ("R.S0", "S0.R", "S0.S1", "S0.S0")
                for how in hows:
                    yield _Made(request, mesh, shape, how)
                    if request.way not in _NUMBERS and "S" in how:
                        yield Apart(request, mesh, shape, how)


class _Made(GuardedCheck):
    def __init__(self, request: Request, mesh: str, shape: tuple[int, ...], how: str) -> None:
        self.request, self.mesh, self.shape, self.how = request, mesh, shape, how
        self.name = f"{'x'.join(map(str, shape))} on {mesh}: {how}"

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(int, self.mesh.split("x")))

    def at(self, rank: int) -> tuple[int, ...]:
        return (rank,) if len(self.sizes) == 1 else (rank // self.sizes[1], rank % self.sizes[1])

    def pairs(self, *, copies: bool) -> Iterator[tuple[int, int]]:
        """Pairs of ranks whose parts are copies of each other, or other parts of the tensor."""
        words = self.how.split(".")
        for one, other in combinations(range(self.request.ranks), 2):
            places = zip(self.at(one), self.at(other), words, strict=True)
            if all(a == b for a, b, word in places if word[0] == "S") == copies:
                yield one, other

    # -- in a rank -----------------------------------------------------------------------------

    def act(self, site: Site) -> Tensors:
        made, _ = self._make(site)
        full, local = asked(made.full_tensor).detach(), made.to_local().detach()
        if self.request.way in _NUMBERS:
            return {"whole": full, "part": local}
        low, high = _RANGES.get(self.request.way, (-100, 100))
        every = self._everybodys(site, (full, local))
        replicas = self.pairs(copies=True)
        return {
            "shape": torch.tensor(tuple(full.shape)),
            "shape of the part": torch.tensor(tuple(local.shape)),
            "all in range": torch.tensor(bool(((full >= low) & (full <= high)).all())),
            "not all alike": torch.tensor(bool((full != full.flatten()[0]).any())),
            "all ranks see one tensor": torch.tensor(
                all(torch.equal(full, one) for one, _ in every)
            ),
            "replicas are equal": torch.tensor(
                all(torch.equal(every[a][1], every[b][1]) for a, b in replicas)
            ),
        }

    def _make(self, site: Site) -> tuple[Any, list[str]]:
        """The tensor, and what torch warns of."""
        torch.manual_seed(self.request.seed + 17)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made = asked(lambda: self._fill(site))
        if site.fault is not None:
            site.fault.part(self, site.rank, made.to_local())
        return made, [str(one.message) for one in said]

    def _fill(self, site: Site) -> Any:
        mesh, to = mesh_of(site, self.mesh), placements(self.how, self.sizes)
        way = self.request.way
        if way in _NUMBERS or way in _RANDOM:
            more = _NUMBERS[way][0] if way in _NUMBERS else ()
            factory = getattr(distributed, way)
            return factory(self.shape, *more, dtype=torch.float64, device_mesh=mesh, placements=to)
        mine = part(
            torch.ones(self.shape, dtype=torch.float64), self.how, self.sizes, self.at(site.rank), 0
        )
        ones = joined(mine, mesh, self.how, torch.Size(self.shape), (self.shape[1], 1))
        return _FILLS[way](ones)

    def _everybodys(self, site: Site, mine: Any) -> list[Any]:
        every: list[Any] = [None] * self.request.ranks
        dist.all_gather_object(every, mine, group=control_of(site))
        return every

    # -- in the judge --------------------------------------------------------------------------

    def expected(self, rank: int) -> dict[str, Exact]:
        way = self.request.way
        if way in _NUMBERS:
            whole = torch.full(self.shape, _NUMBERS[way][1], dtype=torch.float64)
            mine = part(whole, self.how, self.sizes, self.at(rank), 0)
            found = {"whole": whole, "part": mine}
            return {name: Exact(wide(value), value.dtype) for name, value in found.items()}
        mine = part(torch.zeros(self.shape), self.how, self.sizes, self.at(rank), 0)
        shapes = {"shape": self.shape, "shape of the part": tuple(mine.shape)}
        held = ("all in range", "not all alike", "all ranks see one tensor", "replicas are equal")
        return {
            **{name: Exact(torch.tensor(shape), torch.int64) for name, shape in shapes.items()},
            **dict.fromkeys(held, _TRUE),
        }


class Apart(_Made):
    """Shards of random numbers are not copies of each other."""

    def __init__(self, request: Request, mesh: str, shape: tuple[int, ...], how: str) -> None:
        super().__init__(request, mesh, shape, how)
        self.name += ", shards"

    def act(self, site: Site) -> Tensors:
        made, said = self._make(site)
        for text in said:
            if "may not" in text:
                raise RaisedError(f"UserWarning: {text}")
        every = self._everybodys(site, made.to_local().detach())
        return {"shards are not copies": torch.tensor(self.holds(every))}

    def holds(self, every: Sequence[torch.Tensor]) -> bool:
        """Whether no two ranks' parts (of any shape, in rank order) begin with the same numbers."""
        for one, other in self.pairs(copies=False):
            count = min(every[one].numel(), every[other].numel())
            first, second = (every[rank].flatten()[:count] for rank in (one, other))
            if count > _BY_CHANCE and torch.equal(first, second):
                return False
        return True

    def expected(self, rank: int) -> dict[str, Exact]:
        return {"shards are not copies": _TRUE}
