"""``distparity upstream``: run test files of torch's own repository as a cell of the matrix."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from distparity.session import arguments, upstream


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "upstream", help="run files of torch's own test/distributed, each test in its own process"
    )
    parser.add_argument("file", nargs="*", help="fsdp/test_fsdp_core.py, in test/distributed")
    parser.add_argument(
        "--upstream",
        required=True,
        metavar="SOURCE",
        help="a checkout of torch's repository at the release's tag, or a tar archive of it, or the URL "
        "of one; {release} in it is torch's version",
    )
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="ID",
        help="only this test: upstream.fsdp.test_fsdp_core/Class.test, or Class.* for several",
    )
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--test-timeout", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--report-dir", type=Path, default=Path("reports"), metavar="DIR")
    arguments.declare(parser.add_argument, "--expectations")
    parser.add_argument("--cell", metavar="NAME", help="the name of this torch in the reports")
    parser.add_argument(
        "--counts",
        type=Path,
        metavar="FILE",
        help="JSON with the number of tests of each file; a run with fewer fails, and a new file is added",
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    asked = upstream.Upstream(
        given.upstream,
        given.file,
        given.device,
        given.test_timeout,
        given.report_dir,
        given.cell,
        given.counts,
        given.case,
        given.expectations,
    )
    outcomes, complaints, xml = upstream.run(asked, functools.partial(print, flush=True))
    print("\n".join(upstream.lines(outcomes, complaints)))
    print(f"wrote {xml}")
    return int(bool(complaints) or any(outcome.status.bad for outcome in outcomes.values()))
