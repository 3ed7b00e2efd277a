"""Marks: what one failure is known by when it comes again, whatever a processor's last digits are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from distparity.core.judgement import Divergence
from distparity.core.record import Record

__all__ = ["Mark"]

#: How much the size of an error may differ, relative to it, beside the rounding that is allowed.
_APART = 0.01
#: An error of fewer times what is allowed is too near to rounding to have a size of its own; between
#: the two it may be there on one processor and not on another.
_NEAR, _CLEAR = 10.0, 30.0
#: Builds of one release differ in where they were built.
_FOLDER = re.compile(r"[^\s\"'(]*/")
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Mark(Record):
    """One place where a case was wrong, or what one of its ranks did instead of answering.

    ``error``, ``scale`` and ``factor`` are those of :class:`distparity.core.judgement.Size`, ``allowed``
    is the error that was allowed there. All are None where there are no numbers; ``what`` says then
    what was wrong, with ``#`` for each number in it and without folders.
    """

    where: str
    what: str = ""
    error: float | None = None
    scale: float | None = None
    factor: float | None = None
    allowed: float | None = None

    @classmethod
    def of(cls, one: Divergence) -> Mark | None:
        """From a divergence; None where its error is too near to what is allowed to know it by."""
        where = f"{one.quantity}, rank {one.rank}"
        if one.size is None:
            return cls.of_words(where, one.what)
        if one.ratio < _NEAR:
            return None
        size = one.size
        numbers = (size.error, size.scale, size.factor, size.error / one.ratio)
        return cls(where, "", *(float(f"{number:.6g}") for number in numbers))

    @classmethod
    def of_words(cls, where: str, what: str) -> Mark:
        """Words, without the numbers and the folders in them, which another run may not have."""
        return cls(where, _NUMBER.sub("#", _FOLDER.sub("", what)))

    @property
    def is_clear(self) -> bool:
        """Whether the same fault has it on every processor."""
        return self.error is None or not self.error < _CLEAR * (self.allowed or 0.0)

    def is_like(self, other: Mark) -> bool:
        """Whether another outcome's mark is this one: the same place, and as wrong."""
        if (self.where, self.what) != (other.where, other.what):
            return False
        if self.error is None or other.error is None:
            return self.error is other.error
        assert self.factor is not None and other.factor is not None
        rounding = 2 * max(self.allowed or 0.0, other.allowed or 0.0)
        apart = _APART * self.error + rounding
        factors = _APART * abs(self.factor - 1) + rounding / (self.scale or 1.0) + 1e-9
        return abs(self.error - other.error) <= apart and abs(self.factor - other.factor) <= factors
