"""Run generated checks so that no check spoils the next one: refusals, hangs, ranks that disagree.

What a check asks of torch is not known to be supported. So a check ends in one of four ways, which all
ranks agree on through a group of their own: every rank has a result; every rank raised, which is a
*refusal*; some raised and others did not; or ranks waited for others in vain. The last two are failures,
and the next check gets new groups.
"""

from __future__ import annotations

import datetime
import re
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from distparity.operations.base import (
    Check,
    Exact,
    Operation,
    Request,
    Site,
    Tensors,
    members,
)
from distparity.torch_support import origin, private

__all__ = [
    "MESHES",
    "Generated",
    "GuardedCheck",
    "HungError",
    "RaisedError",
    "RefusedError",
    "SplitError",
    "asked",
    "control_of",
    "group_of",
    "mesh_of",
    "place_of",
    "waited",
]

#: The meshes of a world, by its number of ranks, for checks of tensors that are placed on a mesh.
MESHES = {2: ("2",), 4: ("4", "2x2")}
#: Seconds that a collective may take; the second time, because the machine may have been busy.
_PATIENCE = (6.0, 15.0)
#: How long ranks wait for others at the end of a check.
_AGREEING = datetime.timedelta(seconds=45)
#: Checks of one case that may hang before the others are left out.
_MOST_HANGS = 2
_WAITED = re.compile(r"[Tt]imed out|timeout|Connection (closed|reset|refused)|Broken pipe")
#: What torch was asked is in its words for a reader.
_MOST_TOLD = 140


class Generated(Operation):
    """The base class of operations whose checks are generated, hundreds in a case."""

    generated = True
    # Each check has a time limit of its own.
    patience = 10


class RefusedError(Exception):
    """torch raised on every rank."""


class SplitError(Exception):
    """torch raised on some ranks, and not on others."""


class HungError(Exception):
    """Ranks waited for others until their time was over, twice."""


class RaisedError(Exception):
    """torch raised in this rank; the text says what."""


def asked(call: Callable[[], Any]) -> Any:
    """What torch returns; whatever it raises is marked as its answer."""
    try:
        return call()
    except Exception as error:
        raise RaisedError(origin.words(error)[:_MOST_TOLD]) from error


def waited(said: str) -> bool:
    """Whether a rank raised because it waited for others in vain."""
    return _WAITED.search(said) is not None


class GuardedCheck(Check):
    """A check that all ranks of the world run. A subclass has :meth:`act` and :meth:`expected`."""

    request: Request
    #: Whether a rank may be refused what it sends, which no other rank can know: those wait in vain.
    one_sided: bool = False

    def act(self, site: Site) -> Tensors:
        """Run it in this rank. torch is called inside :func:`asked`."""
        raise NotImplementedError

    def expected(self, rank: int) -> dict[str, Exact]:
        raise NotImplementedError

    def partners(self, rank: int) -> Iterable[int]:
        return range(self.request.ranks)

    def run(self, site: Site) -> Tensors:
        """Run it; raises :class:`RefusedError`, :class:`SplitError` or :class:`HungError` on all ranks."""
        world = _World.of(site)
        if world.hangs >= _MOST_HANGS and world.hung_in is self.request:
            raise RefusedError(f"not run: {_MOST_HANGS} checks of this case hung before it")
        for seconds in _PATIENCE:
            world.patience = seconds
            try:
                return self._once(site, world)
            except HungError:
                world.renew()
                if seconds == _PATIENCE[-1]:
                    if world.hung_in is not self.request:
                        world.hung_in, world.hangs = self.request, 0
                    world.hangs += 1
                    raise
        raise AssertionError

    def _once(self, site: Site, world: _World) -> Tensors:
        # The result of a check must not depend on other checks.
        private.forget_dtensor()
        text, made = "", {}
        try:
            made = self.act(site)
        except RaisedError as error:
            text = str(error)
        words = world.agree(text)
        if not any(words):
            return made
        who = [rank for rank, word in enumerate(words) if word]
        raised = [rank for rank in who if not waited(words[rank])]
        if not raised:
            raise HungError(f"ranks {who} waited for others: {words[who[0]]}")
        said = words[raised[0]]
        if raised != who and self.one_sided:
            world.renew()
            raise RefusedError(said)
        # Ranks of different groups need not agree.
        if all(set(self.partners(rank)) <= set(raised) for rank in raised):
            raise RefusedError(said)
        world.renew()
        raise SplitError(f"only ranks {raised} raised {said}")


class _World:
    """The groups that checks of this process use."""

    def __init__(self, device: str, ranks: int) -> None:
        self.device, self.ranks = device, ranks
        self.control: Any = dist.new_group(timeout=_AGREEING)
        self.meshes: dict[str, DeviceMesh] = {}
        #: This rank's group of each team.
        self.groups: dict[str, Any] = {}
        self.patience = _PATIENCE[0]
        #: The time limit that the groups of a mesh have, by the mesh.
        self.limits: dict[str, float] = {}
        #: The case that checks hung in, and how many did.
        self.hung_in: Request | None = None
        self.hangs = 0

    @staticmethod
    def of(site: Site) -> _World:
        return _world(site.context.device.type, site.context.world_size)

    def agree(self, text: str) -> list[str]:
        """What every rank raised, empty for nothing; cheap where nobody raised."""
        code = zlib.crc32(text.encode()) if text else 0
        mine = torch.tensor([float(code), float(-code)], dtype=torch.float64)
        dist.all_reduce(mine, dist.ReduceOp.MAX, group=self.control)
        if mine[0] == -mine[1]:
            return [text] * self.ranks
        every: list[Any] = [None] * self.ranks
        dist.all_gather_object(every, text, group=self.control)
        return every

    def renew(self) -> None:
        """Give up the groups of meshes and teams: calls that nobody answered may be left in them.

        As long as a group is there that has data which nobody reads, gloo keeps a thread busy.
        """
        given_up = [group for mesh in self.meshes.values() for group in mesh.get_all_groups()]
        given_up += filter(None, self.groups.values())
        self.meshes.clear()
        self.limits.clear()
        self.groups.clear()
        for group in given_up:
            dist.destroy_process_group(group)

    def mesh(self, name: str) -> DeviceMesh:
        """The mesh of a name: its sizes (``4``, ``2x2``), or a part of one (``2x2.b``)."""
        whole, _, dim = name.partition(".")
        if whole not in self.meshes:
            self.meshes[whole] = self._make(tuple(map(int, whole.split("x"))))
        mesh = self.meshes[whole]
        if self.limits.get(whole) != self.patience:
            self.limits[whole] = self.patience
            for group in mesh.get_all_groups():
                private.set_timeout(group, datetime.timedelta(seconds=self.patience))
        return mesh[dim] if dim else mesh

    def group(self, rank: int, team: str) -> dist.ProcessGroup | None:
        mine = None
        key = f"{team} {self.patience}"
        if key not in self.groups:
            limit = datetime.timedelta(seconds=self.patience)
            for ranks in members(team, self.ranks):
                group = dist.new_group(ranks, timeout=limit)
                mine = group if rank in ranks else mine
            self.groups[key] = mine
        found: dist.ProcessGroup | None = self.groups[key]
        return found

    def _make(self, sizes: tuple[int, ...]) -> DeviceMesh:
        if len(sizes) > 1:
            return init_device_mesh(self.device, sizes, mesh_dim_names=("a", "b")[: len(sizes)])
        # Not the world's own group, which cannot be replaced.
        return DeviceMesh.from_group(dist.new_group(), self.device)


@cache
def _world(device: str, ranks: int) -> _World:
    return _World(device, ranks)


def group_of(site: Site, team: str) -> dist.ProcessGroup | None:
    """This rank's group of a team (see :func:`distparity.operations.base.members`), if it is in one."""
    return _World.of(site).group(site.rank, team)


def control_of(site: Site) -> dist.ProcessGroup:
    """The group in which ranks agree, which no check uses otherwise."""
    found: dist.ProcessGroup = _World.of(site).control
    return found


def mesh_of(site: Site, name: str) -> DeviceMesh:
    """The mesh of a name, in groups whose collectives end in time."""
    return _World.of(site).mesh(name)


def place_of(mesh: DeviceMesh) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sizes of a mesh, and this rank's coordinates in it."""
    at = mesh.get_coordinate()
    assert at is not None
    return tuple(mesh.shape), tuple(at)
