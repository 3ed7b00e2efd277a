"""Check that the XML of cells says what it should, as a consumer reads it.

    nox -s check-reports -- reports 2.13-cpu nightly-cpu
    nox -s check-reports -- reports 2.4-cpu --known-failure 2.4-cpu:multiple_forward/fsdp2-ws2-float32

A cell is as it should be when its file is there, names the cell, has a result for every declared
case, counts them rightly, ran something, and nothing in it failed but what is known to fail.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from junitparser import xunit2 as junitparser

#: Without these a report cannot be told from another, or be looked into later.
FACTS = (
    "schema",
    "version",
    "torch",
    "torch_git",
    "device_name",
    "device_count",
    "backend",
    "backend_version",
    "world_sizes",
    "python",
    "platform",
    "command",
)
#: The one case of a cell that could not be asked, let alone run.
BROKEN = "cell/start"
KINDS = {"Failure": "failures", "Error": "errors", "Skipped": "skipped"}
#: What failed as an expectation says is a skip to whoever knows no more of it; it did run.
EXPECTED = "distparity.expected failure"


class Cell:
    """The report of one cell. Raises ``ValueError`` where it is not one suite of XML."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = folder / f"junit-{name}.xml"
        try:
            suites = list(junitparser.JUnitXml.fromfile(str(self.path)))
        except FileNotFoundError:
            shares = len(list(folder.glob(f"junit-{name}.shard-*.xml")))
            hint = f"; join its {shares} shares with distparity junit --join" if shares else ""
            raise ValueError(f"there is no {self.path}{hint}") from None
        except Exception as error:
            raise ValueError(f"{self.path} is no JUnit XML: {error}") from None
        if len(suites) != 1:
            raise ValueError(f"{self.path} has {len(suites)} suites, and a cell is one")
        self.suite = suites[0]
        self.facts = {p.name.removeprefix("distparity."): p.value for p in self.suite.properties()}
        self.cases = {_identity(case): _result(case) for case in self.suite}
        #: Skipped because a node was lost: declared, and missing.
        self.lost = {
            _identity(case)
            for case in self.suite
            if any(fact.name == "lost_nodes" for fact in case.properties())
        }
        self.expected = sum(
            getattr(found, "type", None) == EXPECTED for case in self.suite for found in case.result
        )

    @property
    def broken(self) -> bool:
        """True when the suite did not come to its first case."""
        return BROKEN in self.cases

    def complaints(self, known: set[str]) -> Iterator[str]:
        """What is not as it should be, a line for each; ``known`` are the cases known to fail."""
        if self.broken:
            yield self.cases[BROKEN][1]
            return
        yield from self._about_the_cell()
        yield from self._about_the_counts()
        for case, (kind, message) in self.cases.items():
            if kind in ("failures", "errors") and case not in known:
                yield f"{case}: {message}"
            if case in self.lost:
                yield f"{case}: missing: {message}"
            if kind == "skipped" and not message:
                yield f"{case}: skipped without a reason"
            if kind == "passed" and case in known:
                yield f"{case}: is known to fail, and passed"
        for case in sorted(known - set(self.cases)):
            yield f"{case}: is known to fail, and is not there"

    def _about_the_cell(self) -> Iterator[str]:
        found = re.fullmatch(r"(.+?)-([^-]+(?:-shared)?(?:-default)?)", self.name)
        torch, device = found.groups() if found else ("", self.name)
        expected = {"cell": self.name, "device": device, "ended": "finished"}
        for fact, value in expected.items():
            if self.facts.get(fact) != value:
                yield f"{fact} is {self.facts.get(fact)!r}, not {value!r}"
        if self.suite.name != f"distparity torch {torch} {device}":
            yield f"the suite's name is {self.suite.name!r}"
        for fact in FACTS:
            if not self.facts.get(fact):
                yield f"it does not say its {fact}"
        if torch[:1].isdigit() and not f"{self.facts.get('torch')}.".startswith(f"{torch}."):
            yield f"it is about torch {self.facts.get('torch')}"

    def _about_the_counts(self) -> Iterator[str]:
        kinds = [kind for kind, _ in self.cases.values()]
        length = len(list(self.suite))
        counts = {name: kinds.count(name) for name in KINDS.values()}
        for name, count in {"tests": length, **counts}.items():
            if getattr(self.suite, name) != count:
                yield f"it counts {getattr(self.suite, name)} {name} and has {count}"
        if length != len(self.cases):
            yield f"of its {length} cases {length - len(self.cases)} have another's id"
        if self.facts.get("declared") != str(length):
            yield f"{self.facts.get('declared')} cases were declared, and {length} are there"
        if kinds.count("skipped") - self.expected == length:
            yield (
                "nothing ran: every case was skipped" if length else "nothing ran: there is no case"
            )


def _identity(case: junitparser.TestCase) -> str:
    return f"{case.classname.removeprefix('distparity.')}/{case.name}"


def _result(case: junitparser.TestCase) -> tuple[str, str]:
    """The kind of a case's result, as the suite counts it, and its message."""
    for found in case.result:
        kind = KINDS.get(type(found).__name__)
        if kind is not None:
            return kind, found.message or ""
    return "passed", ""


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the reports are")
    parser.add_argument("cells", nargs="+", metavar="CELL", help="2.13-cpu, nightly-cuda, ...")
    parser.add_argument(
        "--known-failure", action="append", default=[], metavar="CELL:CASE", help="it has to fail"
    )
    given = parser.parse_args()
    known: dict[str, set[str]] = {name: set() for name in given.cells}
    for word in given.known_failure:
        name, _, case = word.partition(":")
        if name not in known or not case:
            parser.error(f"--known-failure {word}: it is CELL:CASE, and CELL is one of those given")
        known[name].add(case)
    return _report(given.folder, known)


def _report(folder: Path, known: dict[str, set[str]]) -> int:
    complaints: list[str] = []
    reference: Cell | None = None
    for name, failures in known.items():
        try:
            cell = Cell(folder, name)
        except ValueError as error:
            complaints.append(f"{name}: {error}")
            continue
        found = [f"{name}: {text}" for text in cell.complaints(failures)]
        reference = reference or (None if cell.broken else cell)
        if reference and not cell.broken and list(cell.cases) != list(reference.cases):
            found.append(f"{name}: its test ids are not those of {reference.name}")
        if not found:
            skipped = sum(kind == "skipped" for kind, _ in cell.cases.values()) - cell.expected
            known_text = f", {len(failures)} known to fail" if failures else ""
            known_text += f", {cell.expected} failed as expected" if cell.expected else ""
            print(f"{name}: {len(cell.cases)} cases, {skipped} skipped{known_text}")
        complaints += found
    for text in complaints:
        print(text, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
