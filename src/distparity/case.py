"""One parity case, by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """A scenario trained under a strategy by ``world_size`` ranks in ``dtype`` on ``device``.

    ``supported`` is false when the strategy declares a limit for this case; a rank is still asked
    before it is skipped (see :class:`distparity.strategies.Limit`).
    """

    scenario: str
    strategy: str
    world_size: int
    dtype: str
    device: str

    @property
    def name(self) -> str:
        """The case's name inside its scenario; the same in every cell."""
        return f"{self.strategy}-ws{self.world_size}-{self.dtype}"

    @property
    def id(self) -> str:
        """The case's identity inside a cell; the same in every cell."""
        return f"{self.scenario}/{self.name}"

    def to_json(self) -> dict[str, object]:
        return asdict(self)
