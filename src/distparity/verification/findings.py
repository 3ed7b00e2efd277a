"""The findings about a run or an operation: its divergences, and the verdict over all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from distparity.core.judgement import Divergence, Judgement, Quantity, Size

__all__ = ["Divergence", "Quantity", "Verdict", "at", "size_of"]


@dataclass
class Verdict:
    """The result of a comparison. ``ratio`` is the largest over the whole trajectory.

    The run is right if ``divergences`` is empty.
    """

    ratio: float = 0.0
    #: The largest error, relative to the scale of its tensor.
    error: float = 0.0
    divergences: list[Divergence] = field(default_factory=list)
    #: The largest ratio per step and kind of quantity, for display.
    growth: list[dict[str, float]] = field(default_factory=list)
    #: The known pattern that the divergences fit, if any.
    diagnosis: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing diverged."""
        return not self.divergences

    def note(self, divergence: Divergence) -> None:
        """Add a divergence, and keep the largest ratio."""
        self.ratio = max(self.ratio, divergence.ratio)
        self.divergences.append(divergence)

    def conclude(self) -> Judgement:
        """The verdict as a record."""
        growth = tuple(dict(step) for step in self.growth)
        samples = tuple(self.samples())
        return Judgement(self.ratio, self.error, self.diagnosis, growth, samples=samples)

    def samples(self) -> list[Divergence]:
        """The divergences by which the same fault is known again: the first and the last."""
        return [*self.divergences[:1], *self.divergences[1:][-1:]]


def at(
    quantity: Quantity,
    rank: int,
    what: str,
    ratio: float,
    place: int,
    expected: torch.Tensor,
    found: torch.Tensor,
) -> Divergence:
    """A divergence of one element: the one at the flat index ``place`` of its tensors."""
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), expected.shape))
    values = float(expected.flatten()[place]), float(found.flatten()[place])
    return Divergence(quantity, rank, what, ratio, index, *values, size_of(expected, found))


def size_of(expected: torch.Tensor, found: torch.Tensor) -> Size | None:
    """How wrong a tensor is as a whole; None where one of the two is not finite everywhere."""
    expected, found = expected.detach().double().flatten(), found.detach().double().flatten()
    error = (found - expected).abs().max()
    square = float(expected @ expected)
    factor = float(found @ expected) / square if square else 0.0
    sizes = [float(error), float(expected.abs().max()), factor]
    return Size(*sizes) if all(map(math.isfinite, sizes)) else None
