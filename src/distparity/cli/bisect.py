"""``distparity bisect``: find the torch release that changed the result of a case."""

from __future__ import annotations

import argparse
import functools
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

from distparity import bisection, releases
from distparity.bisection.environment import need_uv
from distparity.bisection.observation import Question
from distparity.core.bad_request import BadRequest
from distparity.session import arguments, upstream
from distparity.session.options import Options

NARROWED = 1


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "bisect", help="find the torch release that changed the result of a case"
    )
    parser.add_argument(
        "--case", required=True, metavar="ID", help="multiple_forward/fsdp2-ws2-float32"
    )
    parser.add_argument(
        "--upstream",
        metavar="SOURCE",
        help="for a test of torch's own (upstream.fsdp.test_x/Class.test): where its files are, as "
        "`distparity upstream` takes it; {release} in it is replaced",
    )
    help_of_ends = "2.6 (its newest patch), 2.6.0, or a nightly's date 2026-05-01"
    parser.add_argument("--good", required=True, metavar="RELEASE", help=help_of_ends)
    parser.add_argument(
        "--bad", required=True, metavar="RELEASE", help="may be older or newer than good"
    )
    parser.add_argument(
        "--factor",
        type=float,
        help="a release is also bad if its ratio is FACTOR times that of the good end",
    )
    parser.add_argument(
        "--runs", type=int, default=1, help="how often to run the case in every release (default 1)"
    )
    parser.add_argument(
        "--every",
        action="store_true",
        help="try every release between the ends, and find every change",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="KIND", help="one kind of device (default %(default)s)"
    )
    arguments.declare(parser.add_argument, "--case-timeout", "--include", "--device-plugin")
    parser.add_argument("--wheel", help="build of torch: registry, cpu, cu126, rocm6.4, xpu, ...")
    parser.add_argument(
        "--index", help=f"use this index instead of {releases.INDEX} ({releases.INDEX_VARIABLE})"
    )
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        dest="beside",
        metavar="REQUIREMENT",
        help="also install this beside every torch, for example a device's plug-in",
    )
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="an interpreter that has a torch; bisect uses only those given, in that order",
    )
    parser.add_argument(
        "--environments", type=Path, metavar="DIR", help="folder for the environments"
    )
    parser.add_argument("--keep", action="store_true", help="keep the environments (5 GB each)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    if given.factor is not None and given.factor <= 1:
        raise BadRequest(f"--factor {given.factor:g}: it must be larger than 1")
    if given.runs < 1:
        raise BadRequest(f"--runs {given.runs}: it must be at least 1")
    # What can be refused before anything is installed.
    if given.upstream is not None:
        _check_upstream(given)
    Options(
        devices=[given.device],
        cases=[] if given.upstream is not None else [given.case],
        limit=given.case_timeout,
        include=given.include,
        plugins=given.device_plugin,
    ).check()
    work = _bisection(given)
    _check_writable(given.json)
    # The environments are deleted, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    made = bisection.Environments(given.environments, keep=given.keep, beside=given.beside)
    try:
        work.run(made, exhaustive=given.every)
    finally:
        made.close()
        if given.json is not None:
            given.json.write_text(json.dumps(work.to_json(), indent=2) + "\n", encoding="utf-8")
        if given.keep:
            print(f"kept {made.folder}")
    print("\n".join(["", *work.lines()]))
    return 0 if work.exact else NARROWED


def _check_upstream(given: argparse.Namespace) -> None:
    """Prepare to run a test of torch's own in each release. Raises :class:`BadRequest`."""
    upstream.Upstream(given.upstream, [], cases=[given.case])
    if re.search(r"[*?\[]", given.case):
        raise BadRequest(f"--case {given.case}: bisect follows one test, not a pattern")
    if given.include or given.device_plugin:
        raise BadRequest("--include and --device-plugin have no effect on torch's own tests")
    # Every release runs in a folder of its own.
    if not re.match(r"https?://", given.upstream):
        given.upstream = str(Path(given.upstream).absolute())
    given.beside += releases.BESIDE_UPSTREAM


def _check_writable(path: Path | None) -> None:
    """Raise :class:`BadRequest` now, rather than after the hours that a search may take."""
    try:
        if path is not None:
            path.touch()
    except OSError as error:
        raise BadRequest(f"cannot write {path}: {error.strerror}") from None


def _bisection(given: argparse.Namespace) -> bisection.Bisection:
    try:
        if given.python:
            span = bisection.given(given.python, given.good, given.bad)
        else:
            need_uv()
            span = bisection.between(
                given.good, given.bad, [given.device], given.wheel, given.index
            )
    except releases.NoSuchCell as error:
        raise BadRequest(str(error)) from None
    question = Question(
        given.case,
        given.device,
        given.case_timeout,
        tuple(given.include),
        tuple(given.device_plugin),
        given.upstream,
    )
    say = functools.partial(print, flush=True)
    return bisection.Bisection(span, question, given.factor, given.runs, say)
