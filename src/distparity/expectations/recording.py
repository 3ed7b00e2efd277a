"""Recording pins: how wrong the known cases of some runs are, written beside the file that knows them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distparity.expectations.entry import Entry
from distparity.expectations.pins import Pin, Pins, read, suffixed, written

__all__ = ["Recording", "known"]


class Recording:
    """The pins beside a file of entries, while runs are added to them.

    ``apart`` are the cases, with their release, of which two runs of a cell were wrong in other places
    or by other amounts; they get no pin. Raises ``ValueError`` if the file has no valid pins.
    """

    def __init__(self, file: Path) -> None:
        self.path = suffixed(file)
        self.pins = read(self.path.read_text("utf-8")) if self.path.exists() else {}
        self.apart: set[str] = set()
        self._fresh: Pins = {}

    def add(
        self, torch: str, cell: str, results: Mapping[str, Any], ran: Iterable[str] = ()
    ) -> None:
        """Note failed cases of a run; ``results`` are those of the report's reader, by the case's id.

        The pins that cases of ``ran`` had before are forgotten.
        """
        there = self._fresh.setdefault((torch, cell), {})
        before = self.pins.get((torch, cell), {})
        for case in ran:
            before.pop(case, None)
        for case, result in results.items():
            # What a device finds is no number, and its entry has a pattern for it.
            if result.failure == "findings":
                continue
            pin = Pin(result.diagnosis, result.marks)
            both = there[case].with_words(pin) if case in there else pin
            if both is None:
                self.apart.add(f"torch {torch}, {case}")
            else:
                there[case] = both

    def write(self) -> int:
        """Write the file of pins; returns the number of cases in it."""
        for (torch, cell), cases in self._fresh.items():
            kept = self.pins.get((torch, cell), {})
            fresh = {c: pin for c, pin in cases.items() if f"torch {torch}, {c}" not in self.apart}
            self.pins[torch, cell] = {**kept, **fresh}
        self.pins = {cell: cases for cell, cases in self.pins.items() if cases}
        self.path.write_text(written(self.pins), "utf-8")
        return sum(map(len, self.pins.values()))


def known(entries: list[Entry], results: Mapping[str, Any]) -> dict[str, Any]:
    """The expected failures of a run that entries of one file know, and whose numbers are defined.

    An outcome names its entries: "known_defects/training.toml:7 and my waivers.toml:1".
    """
    defined = {
        re.compile(rf"(?:^|/| and ){re.escape(entry.where)}(?= and |$)"): not entry.undefined
        for entry in entries
    }
    found = {}
    for case, result in results.items():
        said = result.more.get("expectation", "")
        own = [fine for pattern, fine in defined.items() if pattern.search(said)]
        if result.status == "expected failure" and own and all(own):
            found[case] = result
    return found
