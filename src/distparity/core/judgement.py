"""The judge's answer: whether a case is right, and where it first was not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from distparity.core.record import Record

__all__ = ["Divergence", "Judgement", "Quantity", "Size"]


@dataclass(frozen=True)
class Quantity(Record):
    """One named tensor of a trajectory, or of an operation's check: the unit of comparison."""

    #: The optimizer step, from 0; None before and after training, and in an operation's case.
    step: int | None
    #: ``initial``, ``loss``, ``gradient``, ``norm``, ``parameter``, ``buffer`` or ``optimizer``; in an
    #: operation's case, the name of the check.
    kind: str
    #: The name of the parameter, buffer or result.
    name: str

    def __str__(self) -> str:
        if self.step is not None:
            return f"step {self.step}, {self.kind} {self.name!r}"
        when = {"initial": "before training", "optimizer": "after training"}.get(self.kind)
        return f"{self.kind}: {self.name}" if when is None else f"{when}, {self.kind} {self.name!r}"


@dataclass(frozen=True)
class Size(Record):
    """How wrong a whole tensor is, in numbers that do not depend on which element is the worst.

    ``error`` is the largest difference from the expected value, ``scale`` the largest expected value,
    ``factor`` the multiple of the expected tensor that is nearest to the tensor found (least squares;
    0 where nothing but zeros is expected).
    """

    error: float
    scale: float
    factor: float


@dataclass(frozen=True)
class Divergence(Record):
    """One quantity that is wrong on one rank."""

    quantity: Quantity
    rank: int
    #: What is wrong, for example ``off by 0.1, allowed 1e-07``.
    what: str
    #: Error over allowed error, the largest of all elements; infinite if the fault has no size: a
    #: missing tensor, a NaN, replicas that are not equal bit for bit.
    ratio: float = math.inf
    #: The index of the worst element in the full tensor; empty if the fault is not in one element.
    index: tuple[int, ...] = ()
    #: The worst element's expected and found value; None if the fault is not in one element.
    expected: float | None = None
    found: float | None = None
    #: None where there are no numbers to compare.
    size: Size | None = None

    def __str__(self) -> str:
        text = f"{self.quantity}, rank {self.rank}: {self.what}"
        if self.expected is not None:
            index = list(self.index)
            text += f" at {index}: expected {self.expected:.9g}, found {self.found:.9g}"
        return text + f" (ratio {self.ratio:.3g})"


@dataclass(frozen=True)
class Judgement(Record):
    """The verdict on a case, as a record."""

    #: The largest ratio of error to allowed error over all quantities and ranks.
    ratio: float
    #: The largest error, relative to the scale of its tensor.
    error: float
    #: The known pattern that the divergences fit, if any.
    diagnosis: str | None = None
    #: For each step, the largest ratio by kind of quantity.
    growth: tuple[dict[str, float], ...] = ()
    #: Of an operation: the number of checks; the checks that torch or the backend refused, each
    #: with the declared fact and the refusal.
    checks: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    #: Of an operation, by check: what is told of it, right or wrong.
    told: dict[str, str] = field(default_factory=dict)
    #: Of an operation over sizes: the largest size that was right, in bytes, and bytes per second on the
    #: busiest link at the largest size.
    largest: int | None = None
    bandwidth: float | None = None
    #: The divergences by which the same fault is known again: of training the first and the last,
    #: of an operation the first of each check. Empty if nothing diverged.
    samples: tuple[Divergence, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.samples

    @property
    def first(self) -> Divergence | None:
        """The first divergence; None if nothing diverged."""
        return self.samples[0] if self.samples else None

    @property
    def message(self) -> str:
        """The first divergence in words."""
        return "" if self.first is None else str(self.first)

    @property
    def diverged(self) -> tuple[str, ...]:
        """The checks of an operation that diverged, in order."""
        return tuple(one.quantity.kind for one in self.samples)
