"""What an operation says: the ways to call it, its checks, and what each rank should get.

A check is done twice: :meth:`Check.run` in every rank, on the device, and :meth:`Check.expected`
in one process on the CPU, in float64 and int64. They share the data that go in, and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from distparity.core.known_limit import Limit
from distparity.operations.exact import Exact
from distparity.operations.fault import Fault

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

__all__ = [
    "Check",
    "Exact",
    "Operation",
    "Request",
    "Site",
    "Tensors",
    "members",
    "seeded",
    "teams",
]

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Request:
    """What a case asks of an operation."""

    way: str
    dtype: torch.dtype
    ranks: int
    seed: int


@dataclass
class Site:
    """Where a check is run: a rank's place, its groups, and the fault that is put in, if any."""

    context: RankContext
    fault: Fault | None = None

    @property
    def rank(self) -> int:
        return self.context.rank

    def group(self, team: str) -> dist.ProcessGroup | None:
        """This rank's group of a team (see :func:`members`), None where it is in none.

        All ranks call together.
        """
        return _groups(self.context.device.type, self.context.world_size, team)


class Check:
    """One thing that is done and compared."""

    #: For a reader: unique within its case.
    name: str
    #: What limits may be about: an op's name, a layout, ...
    features: tuple[str, ...] = ()

    def run(self, site: Site) -> Tensors:
        """Do it in this rank. Returns named tensors on the CPU, none for a rank left out of it."""
        raise NotImplementedError

    def partners(self, rank: int) -> Iterable[int]:
        """The ranks that do it together with ``rank``, itself among them."""
        raise NotImplementedError

    def expected(self, rank: int) -> dict[str, Exact]:
        """What :meth:`run` should return in ``rank``."""
        raise NotImplementedError


class Operation:
    """One operation. Subclass it in a file of its own, under ``collectives/`` or ``dtensor/``, and give it ``ways``."""

    #: The ways to call it; each is a case for each dtype and world size.
    ways: ClassVar[tuple[str, ...]]
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    #: Ways that are called by two ranks only, where worlds of two ranks are asked for.
    pairs_only: ClassVar[tuple[str, ...]] = ()
    #: The largest world that is in the default selection, where a smaller one is asked for; None: any.
    default_ranks: ClassVar[int | None] = None
    #: What this torch or backend may refuse. A check that is refused with a declared answer is *not
    #: supported*; any other exception is a failure.
    limits: ClassVar[tuple[Limit, ...]] = ()

    def dtypes_of(self, way: str) -> tuple[str, ...]:
        """The dtypes of a way's cases."""
        return self.dtypes

    def checks(self, request: Request) -> Iterable[Check]:
        """What one case does, in order; the same in every process."""
        raise NotImplementedError


def members(team: str, ranks: int) -> list[list[int]]:
    """The disjoint groups of a team in a world of ``ranks``, each in order of its group ranks.

    ``mesh row`` and ``mesh column`` are the slices of a mesh of ``ranks / 2`` rows and two columns.
    """
    everybody = list(range(ranks))
    if team == "world":
        return [everybody]
    if team == "all but rank 0":
        return [everybody[1:]]
    rows = [everybody[start : start + 2] for start in range(0, ranks, 2)]
    return rows if team == "mesh row" else [list(column) for column in zip(*rows, strict=True)]


def teams(ranks: int) -> list[str]:
    """The teams of a world, besides the whole of it."""
    meshes = ["mesh row", "mesh column"] if ranks % 2 == 0 else []
    return [*meshes, *(["all but rank 0"] if ranks > 2 else [])]


@cache
def _groups(device: str, ranks: int, team: str) -> dist.ProcessGroup | None:
    # Kept for as long as the world lives: to make groups anew for each case takes longer than all
    # that is done with them.
    if team == "world":
        return dist.group.WORLD
    if team == "all but rank 0":
        group: Any = dist.new_group(list(range(1, ranks)))
        return group if isinstance(group, dist.ProcessGroup) else None
    found: dist.ProcessGroup = _mesh(device, ranks).get_group(1 if team == "mesh row" else 0)
    return found


@cache
def _mesh(device: str, ranks: int) -> Any:
    return init_device_mesh(device, (ranks // 2, 2))


def seeded(seed: int, *words: object) -> torch.Generator:
    """A generator on the CPU of its own for whatever ``words`` name."""
    return torch.Generator().manual_seed(seed + zlib.crc32(repr(words).encode()))
