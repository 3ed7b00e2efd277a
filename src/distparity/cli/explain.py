"""``distparity explain``: show the whole trajectory of one case."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from distparity.cli._where import add_where, options
from distparity.session import explain


def add(commands: Any) -> None:
    parser = commands.add_parser("explain", help="show the whole trajectory of one case")
    parser.add_argument("case", help="the id of the case: multiple_forward/fsdp2-ws2-float32")
    add_where(parser)
    parser.set_defaults(world_size=[2, 4], act=_act)
    parser.add_argument("--mutant", help="inject this deliberate fault")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw it")


def _act(given: argparse.Namespace) -> int:
    asked = options(given)
    asked.cases = [given.case]
    case, outcome = explain.explain(asked, given.mutant)
    print("\n".join(explain.table(case, outcome)))
    if given.plot is not None:
        explain.plot(case, outcome, given.plot)
        print(f"wrote {given.plot}")
    return 1 if outcome.status.bad else 0
