"""``distparity junit``: make XML from side files: of a run that died, or of the shares of a cell."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from distparity.results import join, junit_writer


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "junit", help="make the XML from the side files that a run left behind"
    )
    parser.add_argument(
        "journal", nargs="+", type=Path, help="reports/junit-<torch>-<device>.jsonl"
    )
    parser.add_argument(
        "--join", action="store_true", help="join the shares of a cell (--shard) to one cell"
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    code = 0
    try:
        journals = join.join(given.journal) if given.join else given.journal
    except (OSError, ValueError) as error:
        print(f"distparity: {error}", file=sys.stderr)
        return 1
    for path in journals:
        try:
            print(f"wrote {junit_writer.write_from_journal(path)}")
        except (OSError, ValueError) as error:
            print(f"distparity: {error}", file=sys.stderr)
            code = 1
    return code
