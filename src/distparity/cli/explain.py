"""``distparity explain``: show the whole trajectory of one case."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from distparity.bisection.environment import need_uv
from distparity.cli._where import add_where
from distparity.core.bad_request import BadRequest
from distparity.core.outcome import Outcome
from distparity.session import arguments, explain, issue, names


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
        help="write the training, or the first wrong check of an operation, as a program that needs torch "
        "alone, and run it",
    )
    parser.add_argument(
        "--issue",
        type=Path,
        metavar="FILE.md",
        help="with --program: write it as an issue for torch, with the versions of this machine",
    )
    parser.add_argument(
        "--good",
        metavar="RELEASE",
        help="with --issue: find the release since which the program is wrong, by bisection from this "
        "one, in which it is right",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw it")


def _act(given: argparse.Namespace) -> int:
    names.check_mutants([given.mutant] if given.mutant else [])
    for option, needed in (("issue", "program"), ("good", "issue")):
        if getattr(given, option) is not None and getattr(given, needed) is None:
            raise BadRequest(f"--{option} needs --{needed}")
    if given.program is not None and given.mutant is not None:
        raise BadRequest("--program: a program of torch alone has no deliberate fault in it")
    if given.good is not None:
        need_uv()
    options = arguments.options(given)
    found = explain.explain(options, given.mutant, tuple(given.check), given.program)
    if given.plot is not None and len(found) > 1:
        raise BadRequest(f"--plot draws one case, and these are {len(found)}")
    for case, outcome in found:
        print("\n".join(explain.table(case, outcome)))
        if given.plot is not None:
            explain.plot(case, outcome, given.plot)
            print(f"wrote {given.plot}")
    red = [(case, outcome) for case, outcome in found if explain.wrong(outcome)]
    if given.program is not None:
        if red:
            _show(given, *red[-1])
        else:
            print(f"nothing is wrong that a program could show: {given.program} is not written")
    return 1 if any(outcome.status.bad for _, outcome in found) else 0


def _show(given: argparse.Namespace, case: str, outcome: Outcome) -> None:
    """Run the program that was written, and write an issue with it. Raises :class:`BadRequest`."""
    word, said = issue.ran(sys.executable, given.program)
    print(f"wrote {given.program}; it says: {said}")
    if word != "defect":
        raise BadRequest(f"{given.program} does not show what the case shows")
    if given.issue is None:
        return
    changed: list[str] = []
    version = re.search(r"torch (2\.\d+\.\d+)", said)
    if given.good is not None and version is not None:
        changed = issue.since(given.program, given.good, version[1])
    program = given.program.read_text("utf-8")
    text = issue.text(case, outcome, program, said, issue.versions(), changed)
    given.issue.write_text(text, "utf-8")
    print(f"wrote {given.issue}")
