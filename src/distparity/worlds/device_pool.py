"""Assign a machine's devices to worlds, so that no two worlds use the same device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Held", "Pool"]


@dataclass(frozen=True)
class Held:
    """A world's devices: each rank's device index, and how ranks share one device ("" if not)."""

    indices: tuple[int, ...]
    sharing: str = ""

    def clashes(self, others: Iterable[Held]) -> bool:
        """Whether one of the others holds one of these devices."""
        return any(not set(self.indices).isdisjoint(other.indices) for other in others)


@dataclass(frozen=True)
class Pool:
    """``count`` devices of one kind.

    ``exclusive`` devices belong to one process until it ends; other devices may also have idle
    processes. ``sharing`` names the way in which all ranks of a world share one device, if they do.
    """

    count: int
    exclusive: bool = False
    sharing: str = ""

    def take(self, size: int, others: Iterable[Held]) -> Held | None:
        """Devices for a world of ``size`` ranks that none of ``others`` holds; None if too few are free."""
        held = {index for other in others for index in other.indices}
        free = [index for index in range(self.count) if index not in held]
        if self.sharing:
            return Held((free[0],) * size, self.sharing) if free else None
        return Held(tuple(free[:size])) if len(free) >= size else None
