"""Pins: the exact first divergence of a known defect in one case, and its diagnosis."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from packaging.specifiers import SpecifierSet

from distparity.core.outcome import Outcome

__all__ = ["DIGITS", "Pin", "line", "of_case"]

#: The relative difference between two values that rounding on another processor explains.
DIGITS = 1e-3
_MESSAGE = re.compile(
    r"(?P<first>.+?, rank \d+): .* expected (?P<expected>\S+), found (?P<found>\S+) \("
)


@dataclass(frozen=True)
class Pin:
    """The failure of one case with some releases of torch; a different failure is a different fault."""

    case: str
    torch: SpecifierSet
    #: "step 0, gradient '0.weight', rank 0".
    first: str
    expected: float
    found: float
    diagnosis: str = ""

    @classmethod
    def of(cls, table: Any) -> Pin:
        """Read a pin from an entry's table; raises ``ValueError`` or ``TypeError`` if it is invalid."""
        if not isinstance(table, dict) or set(table) - {"diagnosis"} != _NEEDED:
            raise ValueError(f"each needs {', '.join(sorted(_NEEDED))}, and may have a diagnosis")
        values = {**table, "torch": SpecifierSet(table["torch"])}
        values |= {name: float(table[name]) for name in ("expected", "found")}
        return cls(**values)

    def describes(self, outcome: Outcome) -> bool:
        """Whether the first divergence of an outcome is the pinned one, in place and size."""
        first = outcome.first
        if first is None or first.expected is None or first.found is None:
            return False
        near = DIGITS * max(abs(self.expected), abs(self.found))
        return (
            f"{first.quantity}, rank {first.rank}" == self.first
            and str(outcome.facts.get("diagnosis", "")) == self.diagnosis
            and math.isclose(first.expected, self.expected, rel_tol=0, abs_tol=near)
            and math.isclose(first.found, self.found, rel_tol=0, abs_tol=near)
        )


_NEEDED = {"case", "torch", "first", "expected", "found"}


def of_case(outcome: Outcome) -> str:
    """The id of an outcome's case, from its facts; "" if they lack it."""
    facts = outcome.facts
    if "world_size" not in facts:
        return ""
    name = f"{facts['strategy']}-ws{facts['world_size']}-{facts['dtype']}"
    return f"{facts['scenario']}/{name}"


def line(case: str, torch: str, message: str, diagnosis: str) -> dict[str, Any] | None:
    """Make a pin's table from the message of a failed case; None if the message has no values."""
    found = _MESSAGE.match(message)
    if found is None:
        return None
    values = {name: float(found[name]) for name in ("expected", "found")}
    if not all(map(math.isfinite, values.values())):
        return None
    more = {"diagnosis": diagnosis} if diagnosis else {}
    return {"case": case, "torch": f"=={torch}", "first": found["first"], **values, **more}
