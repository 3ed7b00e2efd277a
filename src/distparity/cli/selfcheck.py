"""``distparity selfcheck``: inject deliberate faults, and check that the suite catches them."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from distparity.cli._where import add_where
from distparity.core.near import unknown
from distparity.session import arguments, names, selfcheck


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "selfcheck", help="inject deliberate faults, and check that they are caught"
    )
    # All mutants in a few cases say more about the suite than a few mutants in all cases.
    add_where(parser, "--case", select="quick")
    parser.add_argument(
        "--dtype",
        action="append",
        help="dtypes of parameters and data: one, or a list: float32,bfloat16 (default float32)",
    )
    parser.add_argument("--mutant", action="append", help="only this one; may be repeated")
    parser.add_argument(
        "--pairs", action="store_true", help="list what each pair of scenario and strategy catches"
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="for each fault, strategy, world size and precision, stop at the first scenario that "
        "catches it",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="add what was found to this, as lines of JSON"
    )
    parser.add_argument(
        "--family",
        nargs=argparse.REMAINDER,
        metavar="NAME",
        help="run a family of mutants that another package has; what follows are its own options",
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    if given.family is not None:
        return _family(*given.family or [""])
    names.check_mutants(given.mutant or [])
    found = selfcheck.selfcheck(
        arguments.options(given, (2,)),
        arguments.words(given.dtype) or ["float32"],
        given.mutant,
        once=given.once,
        kept=given.keep,
    )
    print("\n".join(selfcheck.table(found) + (selfcheck.pairs(found) if given.pairs else [])))
    return 0 if found.passed else 1


def _family(name: str, *options: str) -> int:
    """Run the module of an entry point ``distparity.mutants``; returns its exit code."""
    modules = {one.name: one.value for one in entry_points(group="distparity.mutants")}
    if name not in modules:
        raise unknown("family of mutants", name, sorted(modules) or ["none is installed"])
    return subprocess.run([sys.executable, "-m", modules[name], *options], check=False).returncode
