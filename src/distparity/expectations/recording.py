"""Recording pins: how wrong the known cases of some runs are, written beside the file that knows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distparity.expectations.file import parse
from distparity.expectations.pins import Pin, Pins, read, suffixed, written

__all__ = ["Recording"]

#: As an outcome names the entries that know it: "known_defects/training.toml:7 and waivers.toml:1".
_WHERE = re.compile(r"([^/ ]+):(\d+)(?= and |$)")


class Recording:
    """The pins of one file of entries, while runs are added to them.

    What is there of a cell is replaced by what its runs show. ``apart`` are the cases, with their
    release, that two runs of a cell have different pins for; they are not written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.path = suffixed(file)
        self.pins = self.read(file)
        self.apart: set[str] = set()
        self._fresh: Pins = {}
        entries = parse(file.read_text("utf-8"), file.name)
        self._undefined = {entry.where for entry in entries if entry.undefined}

    @staticmethod
    def read(file: Path) -> Pins:
        """The pins of a file of entries as they are; raises ``ValueError`` where they are none."""
        path = suffixed(file)
        return read(path.read_text("utf-8")) if path.exists() else {}

    def add(self, torch: str, device: str, results: Mapping[str, Any]) -> None:
        """Note each expected failure of a run that an entry of the file knows.

        ``results`` are those of the report's reader, by the case's id.
        """
        there = self._fresh.setdefault((torch, device), {})
        for case, result in results.items():
            if result.status != "expected failure" or not self._knows(result):
                continue
            pin = Pin(result.diagnosis, result.marks)
            both = there[case].with_words(pin) if case in there else pin
            if both is None:
                self.apart.add(f"torch {torch}, {case}")
            else:
                there[case] = both

    def write(self) -> int:
        """Write the file of pins; returns the number of cases in it."""
        for (torch, device), cases in self._fresh.items():
            kept = {
                case: pin
                for case, pin in cases.items()
                if f"torch {torch}, {case}" not in self.apart
            }
            self.pins[torch, device] = kept
        self.pins = {cell: cases for cell, cases in self.pins.items() if cases}
        self.path.write_text(written(self.pins), "utf-8")
        return sum(map(len, self.pins.values()))

    def _knows(self, result: Any) -> bool:
        named = _WHERE.findall(result.more.get("expectation", ""))
        own = {f"{name}:{line}" for name, line in named if name == self._file.name}
        return bool(own) and not own & self._undefined
