"""``distparity selfcheck``: inject deliberate faults, and check that the suite catches them."""

from __future__ import annotations

import argparse
from typing import Any

from distparity.cli._where import add_where
from distparity.session import arguments, names, selfcheck


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "selfcheck", help="inject deliberate faults, and check that they are caught"
    )
    # All mutants in a few cases say more about the suite than a few mutants in all cases.
    add_where(parser, "--case", select="quick")
    parser.add_argument(
        "--dtype", default="float32", help="dtype of parameters and data (default %(default)s)"
    )
    parser.add_argument("--mutant", action="append", help="only this one; may be repeated")
    parser.add_argument(
        "--pairs", action="store_true", help="list what each pair of scenario and strategy catches"
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    names.check_mutants(given.mutant or [])
    found = selfcheck.selfcheck(arguments.options(given, (2,)), given.dtype, given.mutant)
    print("\n".join(selfcheck.table(found) + (selfcheck.pairs(found) if given.pairs else [])))
    return 0 if found.passed else 1
