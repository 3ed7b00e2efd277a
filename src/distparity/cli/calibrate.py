"""``distparity calibrate``: measure how close correct runs come to their tolerance."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from distparity.cli._where import add_where
from distparity.core.bad_request import BadRequest
from distparity.session import arguments, calibration


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "calibrate", help="measure the largest ratio of correct runs, over many seeds"
    )
    add_where(parser, "--case")
    parser.set_defaults(act=_act)
    parser.add_argument("--seeds", type=int, default=200, help="how many (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="(default %(default)s)")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="add what was seen to this, and count all of it"
    )
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw the distribution")


def _act(given: argparse.Namespace) -> int:
    if given.seeds < 1:
        raise BadRequest(f"--seeds {given.seeds}: it must be at least 1")
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    try:
        torch, buckets = calibration.calibrate(
            arguments.options(given, (2, 4, 8)), seeds, given.keep
        )
    except ValueError as error:
        raise BadRequest(str(error)) from error
    print("\n".join(calibration.table(torch, buckets)))
    if given.plot is not None:
        given.plot.write_text(calibration.plot(torch, buckets), encoding="utf-8")
    return 0 if buckets and all(bucket.passed for bucket in buckets) else 1
