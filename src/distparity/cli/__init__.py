"""The command line of distparity: one subcommand per file here, found by its name."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

__all__ = ["main", "parser"]


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["run"]:
        from distparity.cli import run

        # pytest and the plugin parse everything that follows, including --help.
        run.become_pytest(words[1:])
    # Imported late, so that ``run``, which replaces this process by pytest, starts faster.
    from distparity.core.bad_request import BadRequest

    given = parser().parse_args(words)
    try:
        code: int = given.act(given)
    except BadRequest as error:
        print(f"distparity: {error}", file=sys.stderr)
        return 4
    return code


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    from distparity.core.version import __version__

    made = argparse.ArgumentParser(
        prog="distparity",
        description="Does distributed training compute what one process computes?",
    )
    made.add_argument("--version", action="version", version=f"distparity {__version__}")
    commands = made.add_subparsers(dest="command", required=True)
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not info.name.startswith("_"):
            importlib.import_module(f"{__name__}.{info.name}").add(commands)
    return made
