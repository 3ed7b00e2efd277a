"""The command line: ``distparity run``, ``distparity junit``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from distparity import __version__, junit

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["run"]:
        # All that follows is pytest's and the plugin's to read, --help as well.
        _run(words[1:])
    parser = argparse.ArgumentParser(prog="distparity", description=__doc__)
    parser.add_argument("--version", action="version", version=f"distparity {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "run",
        help="run the suite with the torch that is installed; takes pytest's options and ours",
        add_help=False,
    )
    xml = commands.add_parser("junit", help="make the XML from side files that a run left behind")
    xml.add_argument("journal", nargs="+", type=Path, help="reports/junit-<torch>-<device>.jsonl")
    given = parser.parse_args(words)
    return _junit(given.journal)


def _run(words: list[str]) -> NoReturn:
    # A process of its own: pytest wants to see this package imported by nobody before itself.
    # By its path: beside a name that is no path, pytest loads what lies about in the current folder,
    # be it ``tests/conftest.py`` and what that needs, or a ``pytest.ini``.
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), *words]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _junit(journals: list[Path]) -> int:
    code = 0
    for path in journals:
        try:
            print(f"wrote {junit.write_from_journal(path)}")
        except (OSError, ValueError) as error:
            print(f"distparity: {error}", file=sys.stderr)
            code = 1
    return code
