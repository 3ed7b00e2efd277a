"""Run the programs under defects/ with the torch that is here, and hold them against the data.

    nox -s defects-2.8

A program shows a defect of torch with torch alone. Where an entry of known_defects/ that names
it has this torch in its range, it has to show; where none has, it must not. Every entry has a
program, and every program an entry. Those of defects/order/ need a device: ci/order_defects.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from packaging.version import Version

from distparity import expectations
from distparity.expectations import SHIPPED, Entry
from distparity.session import issue

ROOT = Path(__file__).parents[1]


class Seen(NamedTuple):
    """A program, what the data says of it with this torch, and what it said."""

    program: str
    expected: str
    found: str
    line: str

    @property
    def right(self) -> bool:
        return self.expected == self.found


def complaints(entries: Iterable[Entry], programs: set[str]) -> list[str]:
    """What is wrong with the data, whatever torch this is, a line each."""
    named = {program for entry in entries for program in entry.programs}
    found = [f"{entry.where}: it names no program" for entry in entries if not entry.programs]
    found += [f"{name}: no entry names it" for name in sorted(programs - named)]
    gone = sorted(named - programs)
    return found + [f"{name}: an entry names it, and it is not there" for name in gone]


def expected(entries: Iterable[Entry], torch: str) -> dict[str, str]:
    """What each program has to say with this torch, by the ranges of the entries that name it."""
    found: dict[str, str] = {}
    for entry in entries:
        within = entry.torch.contains(Version(torch).public, prereleases=True)
        for program in entry.programs:
            if within or program not in found:
                found[program] = "defect" if within else "right"
    return found


def look(wanted: Mapping[str, str], root: Path) -> list[Seen]:
    seen = ((name, *issue.ran(sys.executable, root / name)) for name in sorted(wanted))
    return [Seen(name, wanted[name], word or "nothing", line) for name, word, line in seen]


def table(seen: Iterable[Seen]) -> list[str]:
    rows = [("program", "expected", "found", ""), *((*one[:3], one.line) for one in seen)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--torch", default=version("torch"), help="take it for this release")
    parser.add_argument("--file", type=Path, default=SHIPPED, help="or folder (default: shipped)")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder that has defects/")
    given = parser.parse_args()
    every = expectations.load([given.file]).entries
    entries = [
        one for one in every if not any(name.startswith("defects/order/") for name in one.programs)
    ]
    here = [
        path for glob in ("*.py", "generated/*.py") for path in (given.root / "defects").glob(glob)
    ]
    programs = {path.relative_to(given.root).as_posix() for path in here}
    wrong = complaints(entries, programs)
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        return 1
    seen = look(expected(entries, given.torch), given.root)
    print("\n".join(table(seen)))
    return 0 if all(one.right for one in seen) else 1


if __name__ == "__main__":
    raise SystemExit(main())
