"""``distparity report``: make one page from the XML of any number of cells."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from distparity.core.statuses import counted


def add(commands: Any) -> None:
    parser = commands.add_parser("report", help="make one page of the XML of any number of cells")
    parser.add_argument(
        "source",
        nargs="*",
        type=Path,
        default=[Path("reports")],
        help="XML files, or folders of them (default: reports)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report"), help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--strict",
        nargs="*",
        metavar="CELL",
        help="exit with 1 if one of these cells (2.13-cpu) is absent, or if any cell ran nothing",
    )
    parser.add_argument(
        "--slower",
        type=float,
        metavar="RATIO",
        help="also list the cases that take at least RATIO times as long as in a reference cell",
    )
    parser.add_argument(
        "--against",
        metavar="CELL",
        help="the reference cell (default: the oldest torch on the same device)",
    )
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="show earlier runs of the same cells from FILE, and add these runs to it",
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    try:
        from distparity import report
    except ModuleNotFoundError as error:
        print(f"distparity: report needs {error.name}: install distparity[report]", file=sys.stderr)
        return 1
    try:
        found, written = report.write(given.source, given.output, given.history)
    except report.Refused as error:
        print(f"distparity: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"distparity: cannot write the report: {error}", file=sys.stderr)
        return 1
    for column in found.columns:
        _say(f"{column.title}: {counted(column.counts) or 'no case'}")
    for path in written:
        _say(f"wrote {path}")
    try:
        slow = [] if given.slower is None else report.slower(found, given.slower, given.against)
    except ValueError as error:
        print(f"distparity: {error}", file=sys.stderr)
        return 1
    if given.slower is not None and not slow:
        slow = [
            "slower: nothing to compare: no device has cells of two torches (or name one: --against)"
        ]
    for line in slow:
        _say(line)
    complaints = [] if given.strict is None else report.not_shown(found, given.strict)
    for complaint in complaints:
        print(f"distparity: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def _say(line: str) -> None:
    """Print a line, with escapes for characters that the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "ascii"
    print(line.encode(encoding, "backslashreplace").decode(encoding))
