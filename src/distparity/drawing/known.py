"""Defects of torch that drawn cases have found, by the smallest case that shows each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from distparity.core.case import Case
from distparity.core.record import Record
from distparity.drawing.grammar import Draw
from distparity.drawing.shrink import contains

__all__ = ["Known", "every", "name_of"]


@dataclass(frozen=True)
class Known(Record):
    """One defect of torch."""

    name: str
    #: The smallest case, which has no dtype or device of its own: ``drawn.linear/fsdp2-ws2``.
    case: str
    #: What a reason begins with: ``wrong numbers: gradient``, ``raised: KeyError``.
    reasons: tuple[str, ...]
    #: Fields of the grammar in which a case must have no other word than the smallest.
    same: tuple[str, ...] = ()
    #: The program that shows it, and the releases where it was seen.
    program: str = ""
    seen: str = ""

    def covers(self, case: Case, reason: tuple[str, ...]) -> bool:
        """Whether a red case has the defect in it, and is red for one of its reasons."""
        scenario, _, name = self.case.partition("/")
        strategy, _, size = name.rpartition("-ws")
        small = Case(scenario, strategy, int(size), case.dtype, case.device)
        one, other = Draw.of(case.scenario), Draw.of(scenario)
        return (
            ": ".join(reason).startswith(self.reasons)
            and contains(case, small)
            and all(one.word(field) == other.word(field) for field in self.same)
        )


@cache
def every() -> tuple[Known, ...]:
    """All of them, from ``known.json``."""
    text = Path(__file__).with_name("known.json").read_text(encoding="utf-8")
    return tuple(Known.from_json({**_REST, **one}) for one in json.loads(text))


_REST = {"same": (), "program": "", "seen": ""}


def name_of(case: Case, reason: tuple[str, ...]) -> str | None:
    """The name of the defect that a red case shows; None if it is not known."""
    return next((one.name for one in every() if one.covers(case, reason)), None)
