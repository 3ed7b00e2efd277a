"""``distparity junit``: make the XML of a run that left only its side files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from distparity.results import junit_writer


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "junit", help="make the XML from the side files that a run left behind"
    )
    parser.add_argument(
        "journal", nargs="+", type=Path, help="reports/junit-<torch>-<device>.jsonl"
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    code = 0
    for path in given.journal:
        try:
            print(f"wrote {junit_writer.write_from_journal(path)}")
        except (OSError, ValueError) as error:
            print(f"distparity: {error}", file=sys.stderr)
            code = 1
    return code
