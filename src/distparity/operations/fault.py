"""A deliberate fault: what an operation lets change on its way, and this does not.

A fault is put in where a device's own would show: at what a rank contributes and at what it gets.
Operations call it; the faults that there are stand in :mod:`distparity.operations.faults`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

import torch

__all__ = ["Fault", "Partners"]


class Partners(Protocol):
    """A check, as far as a fault in a DTensor's operation knows it."""

    def partners(self, rank: int) -> Iterable[int]: ...


class Fault:
    """One fault. Each method is a place where it can sit, and does what is right."""

    name: ClassVar[str]
    #: What it does, for a reader.
    title: ClassVar[str]

    def may(self, operation: Any, way: str) -> bool:
        """Whether it concerns an :class:`distparity.operations.Operation`, called in this way."""
        raise NotImplementedError

    # -- in DTensor's operations ---------------------------------------------------------------

    def part(self, check: Partners, rank: int, part: torch.Tensor) -> None:
        """Change this rank's part of an input, in place."""

    def made(self, check: Partners, found: dict[str, torch.Tensor]) -> None:
        """Change what a function made, its results and gradients, in place."""

    # -- in collectives ------------------------------------------------------------------------

    def giver(self, team: list[int], rank: int) -> int:
        """The rank whose data ``rank`` contributes."""
        return rank

    def after(self, done: Any) -> None:
        """Change what a rank has after a call, a :class:`distparity.operations.collectives.Done`."""
