"""Entries beside the cases of a cell: which one is about which, and whether that can be."""

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

__all__ = ["Surroundings", "assign"]


@dataclass(frozen=True)
class Surroundings:
    """Where a cell is: its torch, the names that its device goes by, and its facts."""

    torch: str
    devices: tuple[str, ...]
    facts: Mapping[str, Any]

    def has(self, entry: Entry) -> bool:
        """Whether the entry is about this place; raises :class:`Wrong` for a fact there is none of."""
        for name in entry.facts:
            if name not in self.facts:
                known = ", ".join(sorted(self.facts))
                raise Wrong(f"{entry.where}: facts: no cell has {name!r}; known: {known}")
        return (
            any(among(device, entry.device) for device in self.devices)
            and _within(self.torch, entry.torch)
            and all(_is(str(self.facts[name]), wanted) for name, wanted in entry.facts.items())
        )


def assign(entries: Iterable[Entry], here: Surroundings, cases: list[Case]) -> dict[str, Entry]:
    """The entry for each id that has one. ``cases`` are all that this cell can have.

    Entries that know other checks of a case each are one. Raises :class:`Wrong` where an entry that
    is about this place is about none of the cases, and where two others are about the same one.
    """
    found: dict[str, Entry] = {}
    every = CaseSet(cases)
    for known in filter(here.has, entries):
        pins = tuple(pin for pin in known.pins if _within(here.torch, pin.torch))
        entry = replace(known, pins=pins)
        idle = entry.idle(every)
        if idle:
            raise Wrong(f"{entry.where}: no case here matches {', '.join(idle)}")
        for case in entry.covered(every):
            other = found.get(case.id)
            both = entry if other is None else other.joined(entry)
            if both is None:
                assert other is not None
                where = f"{other.where} and {entry.where}"
                raise Wrong(f"{where}: two entries for one case: {case.id}")
            found[case.id] = both
    return found


def _within(version: str, wanted: SpecifierSet) -> bool:
    """Whether a version is in a range; nightlies and local builds count by their public version.

    Raises :class:`Wrong` where the version is none.
    """
    try:
        public = Version(version).public
    except InvalidVersion:
        raise Wrong(f"expectations need a version of torch, and {version!r} is not one") from None
    return wanted.contains(public, prereleases=True)


def _is(value: str, wanted: str) -> bool:
    if wanted.lstrip()[0] not in "<>=~!":
        return fnmatchcase(value, wanted)
    try:
        return SpecifierSet(wanted).contains(value, prereleases=True)
    except InvalidVersion:
        return False
