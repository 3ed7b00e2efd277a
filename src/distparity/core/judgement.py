"""What the judge answers: whether a case is right, and where it first was not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from distparity.core.record import Record

__all__ = ["Divergence", "Judgement", "Quantity"]


@dataclass(frozen=True)
class Quantity(Record):
    """What is compared: a named tensor of a kind; ``step`` is None before and after training.

    In an operation's case ``kind`` is the name of the check.
    """

    step: int | None
    kind: str
    name: str

    def __str__(self) -> str:
        when = {"initial": "before training", "optimizer": "after training"}.get(self.kind)
        return f"{when or f'step {self.step}'}, {self.kind} {self.name!r}"


@dataclass(frozen=True)
class Divergence(Record):
    """A place where a run is not what it should be.

    ``ratio`` is error / allowed, infinite for what has no size: a missing tensor, a NaN, replicas
    that are not bitwise equal. ``index`` is that of the worst element.
    """

    quantity: Quantity
    rank: int
    what: str
    ratio: float = math.inf
    index: tuple[int, ...] = ()
    expected: float | None = None
    found: float | None = None

    def __str__(self) -> str:
        text = f"{self.quantity}, rank {self.rank}: {self.what}"
        if self.expected is not None:
            index = list(self.index)
            text += f" at {index}: expected {self.expected:.9g}, found {self.found:.9g}"
        return text + f" (ratio {self.ratio:.3g})"


@dataclass(frozen=True)
class Judgement(Record):
    """A verdict, as it leaves the judge."""

    ratio: float
    #: The largest error, relative to its tensor's scale.
    error: float
    #: In words, and as a record; "" and None where nothing diverged.
    message: str = ""
    first: Divergence | None = None
    #: What the pattern of the divergences looks like, where it looks like something.
    diagnosis: str | None = None
    #: The largest ratio per step and kind of quantity.
    growth: tuple[dict[str, float], ...] = ()
    #: Of an operation: how many checks there were, those that torch or the backend refuses, each
    #: with the fact and the answer, and those that diverged, in order.
    checks: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    diverged: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.first is None
