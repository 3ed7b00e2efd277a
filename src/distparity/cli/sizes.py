"""``distparity sizes``: the collectives over sizes, from one element to gigabytes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from distparity.session import arguments, sizes


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "sizes", help="check every collective over sizes, and measure its bandwidth"
    )
    # One time limit holds for all sizes of a collective.
    names = ("--device", "--device-plugin", "--world-size", "--case-timeout")
    arguments.declare(parser.add_argument, *names, case_timeout=600.0)
    parser.add_argument(
        "--largest",
        metavar="BYTES",
        help="the largest message on one rank: 64MiB, 4GiB (default: 64MiB on cpu, 1GiB elsewhere)",
    )
    parser.add_argument(
        "--dtype",
        action="append",
        choices=sizes.DTYPES,
        help=f"may be repeated (default: {', '.join(sizes.DTYPES)})",
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    largest = None if given.largest is None else sizes.bytes_of(given.largest)
    options = arguments.options(given, (2, 4))
    dtypes = tuple(given.dtype or sizes.DTYPES)
    rows: list[sizes.Row] = []
    for line in sizes.table(_kept(sizes.measure(options, largest, dtypes), rows)):
        print(line, flush=True)
    return int(any(row.bad for row in rows) or not any(row.found.right for row in rows))


def _kept(found: Iterator[sizes.Row], rows: list[sizes.Row]) -> Iterator[sizes.Row]:
    for row in found:
        rows.append(row)
        yield row
