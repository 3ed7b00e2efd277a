"""The nodes on which ranks run: this machine, and those that have joined.

With no other node, all of it is the launcher of this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from distparity.core import processes
from distparity.core.wire import Channel, Frame, Link
from distparity.worlds.device_pool import arrange
from distparity.worlds.launcher import Launcher
from distparity.worlds.output import OutputFile

__all__ = ["Fleet", "Node", "NotPlaced", "Remote"]


class NotPlaced(Exception):
    """A world needs nodes that this run does not have, or has no more: those of ``lost``."""

    def __init__(self, message: str, lost: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.lost = tuple(lost)


class Node(Protocol):
    """A machine that forks ranks; processes have the ids of :func:`processes.on_node`."""

    #: 0 is the controller's machine.
    number: int
    name: str
    #: Where ranks on other nodes reach its ranks: an address, and the name of its interface.
    address: str
    interface: str

    def fork(self, world: int, specs: list[dict[str, Any]]) -> Sequence[Sequence[OutputFile]]:
        """Request ranks; returns each one's files."""

    def forget(self, world: int) -> None: ...
    def signal(self, pids: list[int], number: int, *, main: bool = False) -> None: ...
    def kill(self, pids: list[int]) -> None: ...
    def state(self, pid: int) -> str: ...
    def wants_to_run(self, pid: int, *, main: bool = True) -> bool: ...


class Remote(Node, Protocol):
    """A node on another machine, which says what its ranks do on one channel."""

    #: Which of its ranks' processes somebody has stopped.
    stopped: set[int]

    @property
    def channel(self) -> Channel: ...

    @property
    def reason(self) -> str:
        """Why it is gone."""

    def hear(self, frame: Frame) -> Frame | None:
        """Take a frame; returns it if the scheduler has to act on it. Raises for rubbish."""

    def link(self, world: int) -> Link:
        """Where frames go for all ranks that a world has on the node."""

    def hang_up(self) -> None: ...


class Fleet:
    """All nodes, by number. Every request for ranks goes through it to the right ones."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.nodes: dict[int, Node] = {0: launcher}
        #: The nodes that ranks of a group may be on; without the controller's if it only waits for nodes.
        self.takers: list[int] = [0]
        #: By name: why a node that had joined is gone.
        self.lost: dict[str, str] = {}
        #: Ranks per node on the CPU if they are packed.
        self.cpu_ranks = 1

    @property
    def several(self) -> bool:
        """Whether the run has, or had, other nodes than this machine."""
        return len(self.nodes) > 1 or bool(self.lost)

    @property
    def remote(self) -> list[Remote]:
        """The nodes other than this machine."""
        return cast("list[Remote]", [node for number, node in self.nodes.items() if number])

    def names(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """The names of nodes; empty if there is only this machine."""
        return tuple(self.nodes[number].name for number in numbers) if self.several else ()

    def cpu_places(self, size: int, placement: str, load: Mapping[int, int]) -> tuple[int, ...]:
        """The node of each rank of a world on the CPU; ``load`` is how many ranks each node has."""
        self.demand(size, placement)
        order = self.takers
        if placement != "spread":
            order = sorted(order, key=lambda number: load.get(number, 0))
        each = max(self.cpu_ranks, -(-size // len(order)))
        found = arrange(size, {number: list(range(each)) for number in order}, placement)
        return tuple(node for node, _ in found)

    def demand(self, size: int, placement: str) -> None:
        """Refuse a world that can be placed no more; raises :class:`NotPlaced`."""
        left = len(self.takers)
        need = min(size, 2) if placement == "spread" else 1
        if left < need:
            raise NotPlaced(
                f"{size} ranks, {placement or 'packed'}, need {need} nodes, and {left} "
                f"{'is' if left == 1 else 'are'} left{self.gone}",
                self.lost,
            )

    @property
    def gone(self) -> str:
        """Which nodes are gone and why, in words that go on."""
        told = "; ".join(f"{name} {why}" for name, why in self.lost.items())
        return f": {told}" if told else ""

    # -- what a launcher does ------------------------------------------------------------------

    def fork(self, world: int, specs: list[dict[str, Any]]) -> list[Sequence[OutputFile]]:
        """Request ranks, each on the node that its ``spec`` names; returns each one's files."""
        mine: dict[int, list[dict[str, Any]]] = {}
        for spec in specs:
            mine.setdefault(spec.pop("node", 0), []).append(spec)
        if len(mine) > 1:
            address = self.nodes[next(iter(mine))].address
            for number, part in mine.items():
                for spec in part:
                    spec.update(address=address, interface=self.nodes[number].interface)
        files: dict[int, Sequence[OutputFile]] = {}
        for number, part in mine.items():
            own = self.nodes[number].fork(world, part)
            files.update({spec["rank"]: some for spec, some in zip(part, own, strict=True)})
        return [files[spec["rank"]] for spec in specs]

    def link(self, world: int, node: int) -> Link | None:
        """Where frames go for all ranks that a world has on another node; None for this machine."""
        return cast("Remote", self.nodes[node]).link(world) if node else None

    def forget(self, world: int) -> None:
        for node in self.nodes.values():
            node.forget(world)

    def signal(self, pids: list[int], number: int, *, main: bool = False) -> None:
        for node, own in self._by_node(pids):
            node.signal(own, number, main=main)

    def kill(self, pids: list[int]) -> None:
        for node, own in self._by_node(pids):
            node.kill(own)

    def state(self, pid: int) -> str:
        node = self.nodes.get(processes.node_of(pid))
        return "gone" if node is None else node.state(processes.local(pid))

    def any_stopped(self, pids: Iterable[int]) -> bool:
        """Whether somebody has stopped one of these processes."""
        there = set[int]().union(*(node.stopped for node in self.remote if node.stopped))
        return any(
            pid in there if processes.node_of(pid) else self.launcher.state(pid) == "stopped"
            for pid in pids
        )

    def wants_to_run(self, pid: int, *, main: bool = True) -> bool:
        node = self.nodes.get(processes.node_of(pid))
        return node is not None and node.wants_to_run(processes.local(pid), main=main)

    def is_busy(self) -> bool:
        return self.launcher.is_busy()

    def _by_node(self, pids: list[int]) -> list[tuple[Node, list[int]]]:
        """The nodes of these processes, and their process ids there; lost nodes are left out."""
        found: dict[int, list[int]] = {}
        for pid in pids:
            found.setdefault(processes.node_of(pid), []).append(processes.local(pid))
        return [(self.nodes[number], own) for number, own in found.items() if number in self.nodes]
