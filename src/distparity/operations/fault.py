"""The base class of faults in operations, which by default change nothing.

A fault is injected where a fault of the device would show: in a rank's contribution, or in its result.
Operations call these methods; the faults are in :mod:`distparity.operations.faults`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

import torch

__all__ = ["Fault", "Partners"]


class Partners(Protocol):
    """The part of a check that a fault in a DTensor operation uses."""

    def partners(self, rank: int) -> Iterable[int]: ...


class Fault:
    """One deliberate fault. Each method is a place for it, and is correct by default."""

    name: ClassVar[str]
    #: What the fault does, in one line.
    title: ClassVar[str]

    def may(self, operation: Any, way: str) -> bool:
        """Whether it applies to an :class:`distparity.operations.Operation` called in this way."""
        raise NotImplementedError

    # -- in DTensor's operations ---------------------------------------------------------------

    def part(self, check: Partners, rank: int, part: torch.Tensor) -> None:
        """Change this rank's part of an input, in place."""

    def made(self, check: Partners, found: dict[str, torch.Tensor]) -> None:
        """Change a function's results and gradients, in place."""

    def distributed(self, result: Any) -> Any:
        """What an operator's rule makes of a result, before its parts are put together."""
        return result

    # -- in collectives ------------------------------------------------------------------------

    def giver(self, team: list[int], rank: int) -> int:
        """The rank whose data ``rank`` contributes."""
        return rank

    def after(self, done: Any) -> None:
        """Change a rank's results after a call, in place."""

    def swept(self, result: torch.Tensor) -> None:
        """Change a rank's result of a call with one of many sizes, in place."""
