"""The options of all subcommands that run cases: where, and which cases."""

from __future__ import annotations

import argparse

from distparity.session.options import Options
from distparity.session.selection import SELECTIONS


def add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="kind of device (default %(default)s)")
    parser.add_argument("--world-size", type=int, nargs="+", default=[2], help="ranks per world")
    parser.add_argument(
        "--case-timeout", type=float, default=60.0, help="time limit of one case, in seconds"
    )
    parser.add_argument("--include", action="append", default=[], metavar="MODULE")
    parser.add_argument("--select", choices=SELECTIONS, default="default", help="how many cases")
    parser.add_argument("--scenario", action="append", help="only this one; may be repeated")


def options(given: argparse.Namespace) -> Options:
    return Options(
        devices=given.device.split(","),
        world_sizes=given.world_size,
        limit=given.case_timeout,
        include=given.include,
        scenarios=given.scenario,
        select=given.select,
        known_defects=True,
    )
