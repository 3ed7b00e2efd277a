"""``distparity figures``: make a table of the results per device, for the documentation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    parser = commands.add_parser("figures", help="make a Markdown table of the XML of any cells")
    parser.add_argument("source", nargs="+", type=Path, help="XML files, or folders of them")
    parser.add_argument(
        "--into", type=Path, metavar="PAGE.md", help="write the table into this page"
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    try:
        from distparity.report import Refused, figures
    except ModuleNotFoundError as error:
        print(f"distparity: figures need {error.name}: install distparity[report]", file=sys.stderr)
        return 1
    try:
        rows = figures.table(given.source)
        if given.into is None:
            print("\n".join(rows))
        else:
            figures.into(given.into, rows)
    except (Refused, OSError, ValueError) as error:
        print(f"distparity: {error}", file=sys.stderr)
        return 1
    return 0
