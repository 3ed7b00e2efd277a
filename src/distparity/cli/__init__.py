"""The command line of distparity: one subcommand per file here, found by its name."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

from distparity.cli._parser import USAGE, Parser

__all__ = ["USAGE", "main", "parser"]

#: By what they are for: the subcommands.
GROUPS = {
    "run": ("run", "join", "list", "doctor", "upstream", "fuzz"),
    "look at results": ("report", "explain", "bundle", "junit", "figures"),
    "find what changed": ("bisect", "expectations"),
    "check distparity itself": ("selfcheck", "calibrate"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    # Imported late, so that ``run``, which replaces this process by pytest, starts faster.
    from distparity.core.bad_request import BadRequest

    try:
        if words[:1] == ["run"]:
            if not {"-h", "--help"}.intersection(words):
                from distparity.cli import run

                # pytest and the plugin parse everything that follows.
                run.become_pytest(words[1:])
            words = ["run", "--help"]
        made = parser()
        _check_command(*words[:1])
        given = made.parse_args(words)
        if given.command is None:
            made.print_help()
            return 0
        code: int = given.act(given)
    except BadRequest as error:
        print(f"distparity: {error}", file=sys.stderr)
        return USAGE
    return code


def _check_command(word: str = "-") -> None:
    from distparity.core.near import unknown

    known = [name for names in GROUPS.values() for name in names]
    if not word.startswith("-") and word not in known:
        raise unknown("command", word, known)


def parser() -> Parser:
    """The parser of all subcommands."""
    from distparity.core.version import __version__

    made = Parser(
        prog="distparity",
        usage="distparity COMMAND ...",
        description="Does distributed training compute what one process computes?",
    )
    made.add_argument("--version", action="version", version=f"distparity {__version__}")
    commands = made.add_subparsers(
        dest="command", prog="distparity", metavar="COMMAND", help=argparse.SUPPRESS
    )
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not info.name.startswith("_"):
            importlib.import_module(f"{__name__}.{info.name}").add(commands)
    helps = {one.dest: one.help for one in commands._choices_actions}  # noqa: SLF001 - no public name
    lines = [made.description or ""]
    for title, names in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<14}{helps[name]}" for name in names)]
    made.description = "\n".join(
        [*lines, "", "`distparity COMMAND --help` has the options of a command."]
    )
    return made
