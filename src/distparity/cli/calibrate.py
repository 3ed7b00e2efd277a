"""``distparity calibrate``: how near to its tolerance a correct run comes."""

from __future__ import annotations

import argparse
from typing import Any

from distparity.cli._where import add_where, options
from distparity.session import calibration


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "calibrate", help="measure the largest ratio of correct runs, over many seeds"
    )
    add_where(parser)
    parser.set_defaults(world_size=[2, 4], act=_act)
    parser.add_argument(
        "--seeds", type=int, default=200, help="how many seeds (default %(default)s)"
    )


def _act(given: argparse.Namespace) -> int:
    torch, buckets = calibration.calibrate(options(given), given.seeds)
    print("\n".join(calibration.table(torch, buckets)))
    return 0 if buckets and all(bucket.passed for bucket in buckets) else 1
