"""What is found of a run or of an operation: divergences, each with its place, and their sum."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from distparity.core.judgement import Divergence, Judgement, Quantity

__all__ = ["Divergence", "Quantity", "Verdict", "at"]


@dataclass
class Verdict:
    """``ratio`` is the largest over the whole trajectory; the run is right when nothing diverged."""

    ratio: float = 0.0
    #: The largest error, relative to its tensor's scale.
    error: float = 0.0
    divergences: list[Divergence] = field(default_factory=list)
    #: The largest ratio per step and kind of quantity, for a reader.
    growth: list[dict[str, float]] = field(default_factory=list)
    #: What the pattern of the divergences looks like, where it looks like something.
    diagnosis: str | None = None

    @property
    def passed(self) -> bool:
        return not self.divergences

    def note(self, divergence: Divergence) -> None:
        self.ratio = max(self.ratio, divergence.ratio)
        self.divergences.append(divergence)

    def conclude(self) -> Judgement:
        """The verdict as a record."""
        first = self.divergences[0] if self.divergences else None
        message = "" if first is None else str(first)
        growth = tuple(dict(step) for step in self.growth)
        return Judgement(self.ratio, self.error, message, first, self.diagnosis, growth)


def at(
    quantity: Quantity,
    rank: int,
    what: str,
    ratio: float,
    place: int,
    expected: torch.Tensor,
    found: torch.Tensor,
) -> Divergence:
    """A divergence of one element, the ``place``-th of its tensors."""
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), expected.shape))
    values = float(expected.flatten()[place]), float(found.flatten()[place])
    return Divergence(quantity, rank, what, ratio, index, *values)
