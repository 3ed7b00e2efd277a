"""``distparity expectations``: check files of expected failures, and propose entries."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from distparity import expectations
from distparity.core.case import Case
from distparity.core.naming import device_of
from distparity.core.outcome import FAILURES
from distparity.expectations import skip_lists
from distparity.expectations.entry import CaseSet
from distparity.expectations.file import parse
from distparity.expectations.propose import Failed, as_proposals, propose
from distparity.expectations.recording import Recording, known


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "expectations", help="check files of expected failures, or propose entries"
    )
    actions = parser.add_subparsers(dest="action", required=True)
    check = actions.add_parser(
        "check",
        help="check every entry, as far as that is possible without torch",
        description="Check the form of every entry, that the devices, scenarios and strategies that it "
        "names exist, and that no two entries name the same case. Only a run can tell whether an entry "
        "matches any case, and whether it overlaps with a known defect: that depends on torch and the "
        "device.",
    )
    check.add_argument("file", nargs="+", type=Path)
    check.add_argument(
        "--known",
        action="append",
        default=[],
        metavar="NAME",
        help="a device, scenario or strategy of your own that is not installed here; may be repeated",
    )
    check.set_defaults(act=_check)
    update = actions.add_parser("update", help="propose entries for what failed in result files")
    update.add_argument("results", nargs="+", type=Path, help="reports/junit-<torch>-<device>.xml")
    update.add_argument(
        "--case",
        action="append",
        metavar="PATTERN",
        help="only cases whose id matches; may be repeated",
    )
    update.add_argument("-o", "--output", type=Path, metavar="FILE", help="add them to this file")
    update.add_argument(
        "--reason", default="", help="why the cases fail; they must then be of one kind of failure"
    )
    update.add_argument("--link", default="", help="where it is reported")
    update.set_defaults(act=_update)
    imported = actions.add_parser(
        "import",
        help="propose entries for what a skip list names and what failed in result files",
        description="The list says why a case fails, and the result files say how. Names that match no "
        "case, or only cases that passed, are listed.",
    )
    imported.add_argument("--from", dest="form", choices=skip_lists.FORMS, required=True)
    imported.add_argument("file", type=Path, help="the skip list")
    imported.add_argument(
        "results", nargs="+", type=Path, help="reports/junit-<torch>-<device>.xml"
    )
    imported.set_defaults(act=_import)
    exported = actions.add_parser(
        "export", help="write the expected failures of result files as a skip list of another form"
    )
    exported.add_argument("--to", dest="form", choices=skip_lists.FORMS, required=True)
    exported.add_argument(
        "results", nargs="+", type=Path, help="reports/junit-<torch>-<device>.xml"
    )
    exported.set_defaults(act=_export)
    passing = actions.add_parser(
        "passing", help="list what was expected to fail and passed, in Markdown for an issue"
    )
    passing.add_argument("results", nargs="+", type=Path, help="reports/junit-<torch>-<device>.xml")
    passing.set_defaults(act=_passing)
    pin = actions.add_parser(
        "pin",
        help="record how wrong the known cases are, so that another fault in them is not excused",
        description="Write FILE.pins.json beside FILE.toml: where each expected failure of the result "
        "files is wrong, and by how much. From then on the same torch on the same device must fail "
        "alike. Give two runs of each cell: a case that differs between them is named and not written.",
    )
    pin.add_argument("file", type=Path, help="the file of entries that the runs had")
    pin.add_argument("results", nargs="+", type=Path, help="reports/junit-<torch>-<device>.xml")
    pin.set_defaults(act=_pin)


def _check(given: argparse.Namespace) -> int:
    names = expectations.Names.of_files(given.known)
    code = 0
    read: list[Path] = []
    for path in given.file:
        try:
            # Together with the files before it, which are valid.
            expectations.check(expectations.load([*read, path]).entries, names)
            print(f"{path}: {_entries(len(expectations.load([path]).entries))}")
            read.append(path)
        except expectations.Wrong as error:
            code = _refuse(str(error))
    return code


def _update(given: argparse.Namespace) -> int:
    reasoned = bool(given.reason.strip() and given.link.strip())
    if given.output is not None and not reasoned:
        return _refuse(f"{given.output}: not written: give --reason and --link")
    try:
        columns = _columns(given.results)
    except _Unread as error:
        return _refuse(str(error))
    found = _Proposed()
    for column in columns:
        found.add(column, given)
    if not found.entries:
        print("nothing failed for which an entry could be written", file=sys.stderr)
        return 0
    if given.reason.strip() and len(found.kinds) > 1:
        return _refuse("\n".join(found.several()))
    if given.output is None:
        print("\n".join(found.entries) if reasoned else as_proposals(found.entries), end="")
        return 0
    return _write(given.output, found)


def _pin(given: argparse.Namespace) -> int:
    try:
        recorded = Recording(given.file)
        entries = parse(given.file.read_text(encoding="utf-8"), given.file.name)
        for column in _columns(given.results):
            results = {_case(row, column.device).id: one for row, one in column.results.items()}
            recorded.add(column.version.public, column.device, known(entries, results), results)
        number = recorded.write()
    except (_Unread, expectations.Wrong, OSError, ValueError) as error:
        return _refuse(str(error))
    print(f"wrote the pins of {number} case{'' if number == 1 else 's'} to {recorded.path}")
    for case in sorted(recorded.apart):
        _refuse(f"{case}: two runs differ, so it has no pin: give its entry undefined = 'why'")
    return 1 if recorded.apart else 0


def _import(given: argparse.Namespace) -> int:
    try:
        names = skip_lists.read(given.form, given.file.read_text(encoding="utf-8"))
        columns = _columns(given.results)
    except (OSError, ValueError) as error:
        return _refuse(f"{given.file}: {error}")
    explained: list[str] = []
    bare: list[str] = []
    taken: set[skip_lists.Skipped] = set()
    for column in columns:
        cases = {_case(row, column.device): result for row, result in column.results.items()}
        left = {case: found for case, one in cases.items() if (found := _failed(one)) is not None}
        for name in names:
            failed = {case: one for case, one in left.items() if name.names(case)}
            if failed:
                taken.add(name)
                left = {case: one for case, one in left.items() if case not in failed}
                torch = column.version.public
                entries = propose(failed, cases, torch, name.reason, name.link)
                (explained if name.reason and name.link else bare).extend(entries)
    print("\n".join(explained), end="\n" if explained and bare else "")
    print(as_proposals(bare) if bare else "", end="")
    for name in names:
        if name not in taken:
            print(f"{name.test}: it names no case that failed", file=sys.stderr)
    return 0


def _export(given: argparse.Namespace) -> int:
    try:
        columns = _columns(given.results)
    except _Unread as error:
        return _refuse(str(error))
    skipped = {
        _case(row, column.device): " ".join(result.message.split())
        for column in columns
        for row, result in column.results.items()
        if result.status in ("expected failure", "not run")
    }
    print(skip_lists.write(given.form, skipped), end="")
    return 0


def _passing(given: argparse.Namespace) -> int:
    try:
        columns = _columns(given.results)
    except _Unread as error:
        return _refuse(str(error))
    for column in columns:
        fixed = [
            (row, one) for row, one in column.results.items() if one.status == "unexpectedly fixed"
        ]
        if fixed:
            where = f"{column.facts.get('torch', column.torch)} on {column.device}"
            print(f"### torch {where}: {len(fixed)} no longer fail\n")
        for row, one in fixed:
            print(f"- [ ] `{row.id}`: {' '.join(one.message.split())}")
    return 0


class _Unread(ValueError):
    """Result files that cannot be read."""


def _columns(paths: list[Path]) -> list[Any]:
    """The cells of result files."""
    try:
        from distparity.report import Refused, read
    except ModuleNotFoundError as error:
        raise _Unread(f"reading results needs {error.name}: install distparity[report]") from None
    try:
        return [column for path in paths for column in read.read(path)]
    except Refused as error:
        raise _Unread(str(error)) from None


@dataclass
class _Proposed:
    """The proposed entries, the kinds of failure with their cases, and all cases by cell."""

    entries: list[str] = field(default_factory=list)
    kinds: dict[str, dict[str, None]] = field(default_factory=dict)
    every: list[tuple[expectations.Surroundings, list[Case]]] = field(default_factory=list)
    #: The results of the failed cases of each cell.
    failed: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def add(self, column: Any, given: argparse.Namespace) -> None:
        """Propose entries for the failures in a cell, and list the fixed cases."""
        cases = {_case(row, column.device): result for row, result in column.results.items()}
        failed = {
            case: found
            for case, result in cases.items()
            if _wanted(case, given.case) and (found := _failed(result)) is not None
        }
        for case, one in failed.items():
            self.kinds.setdefault(one.kind, {})[case.id] = None
        torch = column.version.public
        self.entries += propose(failed, cases, torch, given.reason.strip(), given.link.strip())
        self.failed.append((torch, column.device, {case.id: cases[case] for case in failed}))
        here = expectations.Surroundings(torch, (device_of(column.device),), column.facts)
        self.every.append((here, list(cases)))
        for case, result in cases.items():
            if result.status == "unexpectedly fixed":
                print(f"{case.id}: {result.message}", file=sys.stderr)

    def several(self) -> Iterator[str]:
        """The advice if one reason would have to explain failures of several kinds."""
        number = len(self.kinds)
        yield f"{number} kinds of failure, but one reason: choose one kind with --case PATTERN"
        for kind, cases in self.kinds.items():
            first, *more = cases
            yield f"  {kind}: {first}{f' and {len(more)} more' if more else ''}"


def _wanted(case: Case, patterns: list[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(case.id, pattern) for pattern in patterns)


def _write(path: Path, found: _Proposed) -> int:
    """Add the entries to the file, and their pins, unless a run would refuse the result."""
    try:
        recorded = Recording(path)
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        text = "\n".join([old.rstrip("\n") + "\n" if old else "", *found.entries]).lstrip("\n")
        entries = parse(text, str(path))
        for here, cases in found.every:
            there = [entry for entry in entries if here.has(entry)]
            # A result file may have only some cases, so an entry that matches none is not an error.
            held = CaseSet(cases)
            matching = [one for one in there if not one.idle(held, one.covered(held))]
            expectations.assign(matching, here, cases)
        for torch, cell, results in found.failed:
            recorded.add(torch, cell, results)
        path.write_text(text, encoding="utf-8")
        recorded.write()
    except (OSError, UnicodeDecodeError) as error:
        return _refuse(f"{path}: {error}")
    except ValueError as error:
        return _refuse(f"nothing was written: {error}")
    print(f"wrote {_entries(len(found.entries))} to {path}")
    return 0


def _case(row: Any, device: str) -> Case:
    return Case(row.scenario, row.strategy or row.name, row.world_size or 0, row.dtype, device)


def _failed(result: Any) -> Failed | None:
    """How a case failed; None if it did not fail, or if the kind of failure is unknown."""
    if result.status not in ("failed", "crash", "timeout") or result.failure not in FAILURES:
        return None
    return Failed(result.failure, result.message, result.diagnosis, result.diverged)


def _refuse(message: str) -> int:
    print(f"distparity: {message}", file=sys.stderr)
    return 1


def _entries(number: int) -> str:
    return f"{number} {'entry' if number == 1 else 'entries'}"
