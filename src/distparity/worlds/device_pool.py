"""Assign a machine's devices to worlds, so that no two worlds use the same device."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Held", "Pool", "arrange"]


def arrange(size: int, free: Mapping[int, list[int]], placement: str) -> list[tuple[int, int]]:
    """A node and a device index for each of ``size`` ranks; fewer if there are too few.

    ``spread`` puts one rank on each node first; any other placement fills one node before the next.

    ``free`` has the free devices of each node, in the order in which nodes are used.
    """
    if placement != "spread":
        whole = [node for node, indices in free.items() if len(indices) >= size]
        every = [(node, index) for node in whole[:1] or free for index in free[node]]
        return every[:size]
    found: list[tuple[int, int]] = []
    for turn in range(size):
        found += [(node, indices[turn]) for node, indices in free.items() if turn < len(indices)]
    return found[:size]


@dataclass(frozen=True)
class Held:
    """A world's devices: each rank's device index, and how ranks share one device ("" if not).

    ``nodes`` has the number of each rank's node; empty if all are on this machine, which is node 0.
    """

    indices: tuple[int, ...]
    sharing: str = ""
    nodes: tuple[int, ...] = ()

    @property
    def places(self) -> list[tuple[int, int]]:
        """Each rank's node and device index."""
        return list(zip(self.nodes or (0,) * len(self.indices), self.indices, strict=True))

    def clashes(self, others: Iterable[Held]) -> bool:
        """Whether one of the others holds one of these devices."""
        return any(not set(self.places).isdisjoint(other.places) for other in others)


@dataclass(frozen=True)
class Pool:
    """``count`` devices of one kind on each node; ``counts`` has the nodes with another number.

    ``exclusive`` devices belong to one process until it ends; other devices may also have idle
    processes. ``sharing`` names the way in which all ranks of a world share one device, if they do.
    """

    count: int
    exclusive: bool = False
    sharing: str = ""

    counts: Mapping[int, int] = field(default_factory=dict)
    #: The indices that belong together; a world has devices of one group on each node. Empty: all do.
    groups: tuple[tuple[int, ...], ...] = ()

    def on(self, node: int) -> int:
        """How many there are on a node."""
        return self.counts.get(node, self.count)

    def together(self, indices: Collection[int]) -> bool:
        """Whether these devices of one node belong together."""
        return not self.groups or any(set(indices) <= set(group) for group in self.groups)

    def _free(self, node: int, size: int, held: Collection[tuple[int, int]]) -> list[int]:
        """The free devices of a group of the node: the smallest that is enough, else the largest."""
        groups = self.groups or (tuple(range(self.on(node))),)
        free = [
            [index for index in group if index < self.on(node) and (node, index) not in held]
            for group in groups
        ]
        enough = [one for one in free if len(one) >= size]
        return min(enough, key=len) if enough else max(free, key=len)

    def take(
        self,
        size: int,
        others: Iterable[Held],
        placement: str = "",
        nodes: Sequence[int] = (0,),
        wanted: Held | None = None,
    ) -> Held | None:
        """Devices for a world of ``size`` ranks that none of ``others`` holds; None if too few are free.

        With ``wanted``, these or none.
        """
        if wanted is not None:
            return None if wanted.clashes(others) else wanted
        held = {place for other in others for place in other.places}
        free = {node: self._free(node, 1 if self.sharing else size, held) for node in nodes}
        if self.sharing:
            return Held((free[0][0],) * size, self.sharing) if free[0] else None
        found = arrange(size, free, placement)
        spread = len({node for node, _ in found})
        if len(found) < size or (placement == "spread" and spread < min(size, len(nodes))):
            return None
        where = () if list(nodes) == [0] else tuple(node for node, _ in found)
        return Held(tuple(index for _, index in found), nodes=where)
