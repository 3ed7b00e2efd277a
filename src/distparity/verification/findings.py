"""What is found of a run or of an operation: divergences, each with its place, and their sum."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Divergence", "Quantity", "Verdict", "at"]


@dataclass(frozen=True)
class Quantity:
    """What is compared: a named tensor of a kind; ``step`` is None before and after training."""

    step: int | None
    kind: str
    name: str

    def __str__(self) -> str:
        when = {"initial": "before training", "optimizer": "after training"}.get(self.kind)
        return f"{when or f'step {self.step}'}, {self.kind} {self.name!r}"


@dataclass
class Divergence:
    """A place where a run is not what it should be.

    ``ratio`` is error / allowed, infinite for what has no size: a missing tensor, a NaN, replicas
    that are not bitwise equal.
    """

    quantity: Quantity
    rank: int
    what: str
    ratio: float = math.inf
    index: list[int] = field(default_factory=list)
    expected: float | None = None
    found: float | None = None

    def __str__(self) -> str:
        text = f"{self.quantity}, rank {self.rank}: {self.what}"
        if self.expected is not None:
            text += f" at {self.index}: expected {self.expected:.9g}, found {self.found:.9g}"
        return text + f" (ratio {self.ratio:.3g})"


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

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "ratio": _plain(self.ratio),
            "error": _plain(self.error),
            "first": None if self.passed else str(self.divergences[0]),
            "diagnosis": self.diagnosis,
            "growth": [{k: _plain(v) for k, v in step.items()} for step in self.growth],
        }


def _plain(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else str(value)


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
    index = [int(i) for i in torch.unravel_index(torch.tensor(place), expected.shape)]
    values = float(expected.flatten()[place]), float(found.flatten()[place])
    return Divergence(quantity, rank, what, ratio, index, *values)
