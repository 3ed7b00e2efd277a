"""Assign entries to the cases of a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from distparity.core.case import Case
from distparity.expectations.entry import CaseSet, Entry
from distparity.expectations.file import Wrong
from distparity.expectations.patterns import among
from distparity.expectations.pins import Pin, Pins

__all__ = ["Surroundings", "assign"]


@dataclass(frozen=True)
class Surroundings:
    """What entries can match in a cell: its torch, the names of its device, and its facts."""

    torch: str
    devices: tuple[str, ...]
    facts: Mapping[str, Any]

    def has(self, entry: Entry) -> bool:
        """Whether the entry applies to this cell; raises :class:`Wrong` for an unknown fact."""
        for name in entry.facts:
            if name not in self.facts:
                known = ", ".join(sorted(self.facts))
                raise Wrong(f"{entry.where}: facts: no cell has {name!r}; known: {known}")
        return (
            any(among(device, entry.device) for device in self.devices)
            and _within(self.torch, entry.torch)
            and all(_is(str(self.facts[name]), wanted) for name, wanted in entry.facts.items())
        )

    def pinned(self, pins: Pins) -> dict[str, Pin]:
        """The pins of this cell, by the case's id.

        They are recorded under the cell's name: a shared device, or one with other arithmetic, is wrong
        by other amounts.
        """
        cell = str(self.facts.get("device", self.devices[0]))
        return pins.get((Version(self.torch).public, cell), {})


def assign(
    entries: Iterable[Entry],
    here: Surroundings,
    cases: list[Case],
    pins: Pins | None = None,
) -> dict[str, Entry]:
    """The entry of each case, by id, with its pin. ``cases`` are all that this cell can have.

    Entries that name different checks of one case are joined. Raises :class:`Wrong` if an entry that
    applies to this cell matches no case, and if two other entries match the same case.
    """
    found: dict[str, Entry] = {}
    every = CaseSet(cases)
    for entry in filter(here.has, entries):
        covered = entry.covered(every)
        idle = entry.idle(every, covered)
        if idle:
            raise Wrong(f"{entry.where}: no case here matches {', '.join(idle)}")
        for case in covered:
            other = found.get(case.id)
            both = entry if other is None else other.joined(entry)
            if both is None:
                assert other is not None
                where = f"{other.where} and {entry.where}"
                raise Wrong(f"{where}: two entries for one case: {case.id}")
            found[case.id] = both
    pinned = here.pinned(pins or {}) if found else {}
    return {
        case: entry if entry.undefined else replace(entry, pin=pinned.get(case))
        for case, entry in found.items()
    }


def _within(version: str, wanted: SpecifierSet) -> bool:
    """Whether a version is in a range; nightlies and local builds count as their public version.

    Raises :class:`Wrong` if ``version`` is not a version.
    """
    try:
        public = Version(version).public
    except InvalidVersion:
        raise Wrong(f"expectations need a version of torch, but {version!r} is not one") from None
    return wanted.contains(public, prereleases=True)


def _is(value: str, wanted: str) -> bool:
    if wanted.lstrip()[0] not in "<>=~!":
        return fnmatchcase(value, wanted)
    try:
        return SpecifierSet(wanted).contains(value, prereleases=True)
    except InvalidVersion:
        return False
