"""The interface of an operation: the ways to call it, its checks, and each rank's expected results.

Each check is computed twice: by :meth:`Check.run` in every rank, on the device, and by
:meth:`Check.expected` in one process on the CPU, in float64 and int64. The two share only their
inputs.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
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
    from distparity.core.judgement import Divergence
    from distparity.devices.context import RankContext

__all__ = [
    "REFUSED",
    "Check",
    "Exact",
    "Judged",
    "Operation",
    "Request",
    "Site",
    "Tensors",
    "members",
    "seeded",
    "teams",
]

Tensors = dict[str, torch.Tensor]
#: The name of the exception by which a generated check says that torch raised on every rank.
REFUSED = "RefusedError"


@dataclass(frozen=True)
class Request:
    """The parameters of one case of an operation."""

    way: str
    dtype: torch.dtype
    ranks: int
    seed: int
    #: The largest message on one rank, in bytes, of what is called over sizes; None for the default.
    largest: int | None = None


@dataclass(frozen=True)
class Judged:
    """What ranks found that compared their results themselves, and what the report is told of it."""

    wrong: list[Divergence]
    told: str
    #: The largest size that was right on all ranks, in bytes, and bytes per second at the largest size,
    #: on the slowest rank.
    right: int
    bandwidth: float


@dataclass
class Site:
    """Where a check runs: the context of a rank, its groups, and the fault to inject, if any."""

    context: RankContext
    fault: Fault | None = None

    @property
    def rank(self) -> int:
        return self.context.rank

    def group(self, team: str) -> dist.ProcessGroup | None:
        """This rank's process group of a team (see :func:`members`); None if it is in none.

        A collective call on all ranks.
        """
        return _groups(self.context.device.type, self.context.world_size, team)


class Check:
    """One comparison inside a case of an operation."""

    #: A name for the reader, unique within its case.
    name: str
    #: Features that limits can refer to: a reduction's name, a memory layout, ...
    features: tuple[str, ...] = ()

    def is_defined(self) -> bool:
        """Whether there is a right result at all; the judge leaves out a check that has none."""
        return True

    def refused_part(self, own: Mapping[str, torch.Tensor | None]) -> tuple[str, str] | None:
        """The part of a check's results that torch refused, and in which words; None if it has all.

        The part is what the names of these results begin with.
        """
        return None

    def judged(self, every: Sequence[Mapping[str, torch.Tensor | None]]) -> Judged | None:
        """The verdict, if ranks compared their results themselves; ``every`` is :meth:`run`'s, by rank.

        None if the judge compares them with :meth:`expected`.
        """
        return None

    def run(self, site: Site) -> Tensors:
        """Run it in this rank; returns tensors on the CPU by name, none if the rank has no part in it."""
        raise NotImplementedError

    def partners(self, rank: int) -> Iterable[int]:
        """The ranks that run it together with ``rank``, including ``rank``."""
        raise NotImplementedError

    def expected(self, rank: int) -> dict[str, Exact]:
        """The right result of :meth:`run` in ``rank``, by the same names."""
        raise NotImplementedError


class Operation:
    """One operation. Subclass it in a file of its own, under ``collectives/`` or ``dtensor/``.

    A subclass with ``ways`` makes cases.
    """

    #: The ways to call it; each makes one case per dtype and world size.
    ways: ClassVar[tuple[str, ...]]
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    #: Ways that only a world of two ranks runs, if such a world is requested.
    pairs_only: ClassVar[tuple[str, ...]] = ()
    #: The largest world size in the default selection, unless only larger ones are requested; None: any.
    default_ranks: ClassVar[int | None] = None
    #: The world sizes that it has checks for; none: any.
    worlds: ClassVar[tuple[int, ...]] = ()
    #: The selection that its cases are in, and in no other; "" for the usual ones.
    selection: ClassVar[str] = ""
    #: Whether nobody promised that what it calls works: whatever torch refuses is not supported.
    generated: ClassVar[bool] = False
    #: How many times as long as another case one of its cases may take.
    patience: ClassVar[int] = 1
    #: Whether its cases run while nothing else runs.
    alone: ClassVar[bool] = False
    #: What torch or the backend may refuse. A check that is refused with a declared answer is *not
    #: supported*; any other exception is a failure.
    limits: ClassVar[tuple[Limit, ...]] = ()

    def dtypes_of(self, way: str) -> tuple[str, ...]:
        """The dtypes of the cases of a way, by torch's names."""
        return self.dtypes

    def checks(self, request: Request) -> Iterable[Check]:
        """The checks of one case, in order; the same in every process."""
        raise NotImplementedError


def members(team: str, ranks: int) -> list[list[int]]:
    """The disjoint groups of a team in a world of ``ranks``, each in the order of its group ranks.

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
    """The teams of a world, except the world itself."""
    meshes = ["mesh row", "mesh column"] if ranks % 2 == 0 else []
    return [*meshes, *(["all but rank 0"] if ranks > 2 else [])]


@cache
def _groups(device: str, ranks: int, team: str) -> dist.ProcessGroup | None:
    # Kept as long as the world lives: creating groups for each case would take longer than all
    # checks.
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
    """A CPU generator whose seed depends on ``seed`` and on ``words``."""
    return torch.Generator().manual_seed(seed + zlib.crc32(repr(words).encode()))
