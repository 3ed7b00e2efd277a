"""Which of a machine's devices a world's ranks are on, so that no two worlds use the same one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Held", "Pool"]


@dataclass(frozen=True)
class Held:
    """A world's devices: the index of each rank's, and the way in which ranks share one, or ""."""

    indices: tuple[int, ...]
    sharing: str = ""

    def clashes(self, others: Iterable[Held]) -> bool:
        return any(not set(self.indices).isdisjoint(other.indices) for other in others)


@dataclass(frozen=True)
class Pool:
    """``count`` devices of a kind.

    ``exclusive`` devices belong to a process until it ends; others may have processes on them that
    wait. ``sharing`` names the way in which all ranks of a world share one device, if they do.
    """

    count: int
    exclusive: bool = False
    sharing: str = ""

    def take(self, size: int, others: Iterable[Held]) -> Held | None:
        """Devices for a world of ``size`` ranks that none of ``others`` holds; None where too few."""
        held = {index for other in others for index in other.indices}
        free = [index for index in range(self.count) if index not in held]
        if self.sharing:
            return Held((free[0],) * size, self.sharing) if free else None
        return Held(tuple(free[:size])) if len(free) >= size else None
