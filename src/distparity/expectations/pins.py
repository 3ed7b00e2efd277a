"""Pins: how wrong each known case was when it was last looked at, release by release.

They lie beside the file of entries that they are about: ``NAME.pins.json`` beside ``NAME.toml``. An
outcome that an entry describes and whose pin is another is another fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from distparity.core.marks import Mark
from distparity.core.outcome import Outcome

__all__ = ["Pin", "Pins", "read", "suffixed", "written"]


@dataclass(frozen=True)
class Pin:
    """What one case looked like with one release of torch on one device."""

    diagnosis: str
    marks: tuple[Mark, ...]

    @classmethod
    def of(cls, outcome: Outcome) -> Pin:
        """What an outcome looks like."""
        return cls(str(outcome.facts.get("diagnosis", "")), outcome.marks)

    def describes(self, outcome: Outcome) -> bool:
        """Whether a case fails as it did: wrong in the same places by as much, or in the same words.

        Which rank of several fails first is chance: where ranks raise, die or hang, all that they
        did must be known, and not all that is known have happened.
        """
        found = Pin.of(outcome)
        return (
            found.diagnosis == self.diagnosis
            and _all_in(found.marks, self.marks)
            and (outcome.failure != "wrong numbers" or _all_in(self.marks, found.marks))
        )

    def with_words(self, other: Pin) -> Pin | None:
        """What describes both; None where they are wrong in other places or by other amounts."""
        more = [one for one in other.marks if not any(one.is_like(mark) for mark in self.marks)]
        if self.diagnosis != other.diagnosis:
            return None
        if any(one.error is not None or not one.where.isalpha() for one in more):
            return None
        return Pin(self.diagnosis, (*self.marks, *more))


def _all_in(marks: Iterable[Mark], others: Iterable[Mark]) -> bool:
    """Whether each mark is like another of its place; a faint one may have none there."""
    places: dict[tuple[str, str], list[Mark]] = {}
    for other in others:
        places.setdefault((other.where, other.what), []).append(other)
    return all(
        any(map(one.is_like, there)) if there else not one.is_clear
        for one in marks
        for there in [places.get((one.where, one.what))]
    )


#: By release and the name of the cell (its device, and how it is used), and in that by the case's id.
Pins = dict[tuple[str, str], dict[str, Pin]]


def suffixed(path: Path) -> Path:
    """Where the pins of a file of entries lie."""
    return path.with_suffix(".pins.json")


def read(content: str) -> Pins:
    """The pins of a file's text; raises ``ValueError`` where it is none of `written`'s."""
    found: Pins = {}
    try:
        for release, devices in json.loads(content).items():
            public = Version(release).public
            for device, cases in devices.items():
                found[public, device] = {case: _pin(values) for case, values in cases.items()}
    except (AttributeError, TypeError, InvalidVersion, RecursionError) as error:
        raise ValueError(f"it is no table of pins: {error}") from None
    return found


def written(pins: Pins) -> str:
    """What :func:`read` reads, a line per case, so that a change is a line of a diff."""
    devices: dict[str, dict[str, dict[str, Pin]]] = {}
    for (release, device), cases in sorted(pins.items(), key=lambda one: Version(one[0][0])):
        devices.setdefault(release, {})[device] = cases
    return _block(
        {
            release: _block(
                {
                    device: _block({case: _line(pin) for case, pin in sorted(cases.items())}, 2)
                    for device, cases in sorted(each.items())
                },
                1,
            )
            for release, each in devices.items()
        },
        0,
    )


def _block(values: Mapping[str, str], depth: int) -> str:
    lines = ",\n".join(f"{' ' * depth}{json.dumps(key)}: {value}" for key, value in values.items())
    return f"{{\n{lines}\n{' ' * max(depth - 1, 0)}}}" + ("" if depth else "\n")


def _line(pin: Pin) -> str:
    return json.dumps([pin.diagnosis, *_short(pin.marks)], ensure_ascii=False)


def _short(marks: Iterable[Mark]) -> Iterable[list[Any]]:
    for mark in marks:
        numbers = [mark.error, mark.scale, mark.factor, mark.allowed]
        if mark.error is None:
            yield [mark.where, mark.what]
        else:
            yield [mark.where, "", *numbers]


def _pin(values: Any) -> Pin:
    diagnosis, *marks = values
    return Pin(str(diagnosis), tuple(_mark(*one) for one in marks))


def _mark(where: str, what: str, *numbers: float) -> Mark:
    if len(numbers) not in (0, 4):
        raise TypeError("a mark has a place and words, or a place, an empty text and four numbers")
    return Mark(str(where), str(what), *map(float, numbers))
