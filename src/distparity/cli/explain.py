"""``distparity explain``: show the whole trajectory of one case."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from distparity.cli._where import add_where
from distparity.core.bad_request import BadRequest
from distparity.session import arguments, explain, names


def add(commands: Any) -> None:
    parser = commands.add_parser("explain", help="show the whole trajectory of one case")
    parser.add_argument(
        "case", nargs=1, help="the id of the case: multiple_forward/fsdp2-ws2-float32"
    )
    add_where(parser)
    parser.set_defaults(act=_act)
    parser.add_argument("--mutant", help="inject this deliberate fault")
    parser.add_argument(
        "--check",
        action="append",
        default=[],
        help="only this check of an operation; may be repeated",
    )
    parser.add_argument(
        "--program",
        type=Path,
        metavar="FILE.py",
        help="write the training, or the first wrong check of a generated operation, as a program that "
        "needs torch alone, and run it",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw it")


def _act(given: argparse.Namespace) -> int:
    names.check_mutants([given.mutant] if given.mutant else [])
    options = arguments.options(given)
    found = explain.explain(options, given.mutant, tuple(given.check), given.program)
    if given.plot is not None and len(found) > 1:
        raise BadRequest(f"--plot draws one case, and these are {len(found)}")
    for case, outcome in found:
        print("\n".join(explain.table(case, outcome)))
        if given.plot is not None:
            explain.plot(case, outcome, given.plot)
            print(f"wrote {given.plot}")
    if given.program is not None and any(explain.wrong(outcome) for _, outcome in found):
        shown, said = explain.shows(given.program)
        print(f"wrote {given.program}; it says: {said}")
        if not shown:
            raise BadRequest(f"{given.program} does not show what the case shows")
    return 1 if any(outcome.status.bad for _, outcome in found) else 0
