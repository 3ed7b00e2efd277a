"""One parity case, by name."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Case"]


class Case(NamedTuple):
    """A scenario trained with a strategy by ``world_size`` ranks in ``dtype`` on ``device``.

    For an operation, ``scenario`` is its name and ``strategy`` the way to call it. For a test of torch's
    own repository they are its file and its name; it has no ranks or dtype that we choose (0 and "").
    """

    scenario: str
    strategy: str
    world_size: int
    dtype: str
    device: str

    @property
    def name(self) -> str:
        """The case's name inside its scenario: ``strategy-wsN-dtype``, the same in every cell."""
        if not self.world_size:
            return self.strategy
        return f"{self.strategy}-ws{self.world_size}-{self.dtype}"

    @property
    def id(self) -> str:
        """The case's id inside a cell: ``scenario/name``, the same in every cell."""
        return f"{self.scenario}/{self.name}"

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that every record of the case has."""
        return {
            "scenario": self.scenario,
            "strategy": self.strategy,
            "world_size": self.world_size,
            "dtype": self.dtype,
        }
