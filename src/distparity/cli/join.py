"""``distparity join``: take part, as a node, in a run that another machine controls."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from distparity.core.bad_request import BadRequest


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "join",
        help="take part, as a node, in a run on another machine that waits for nodes",
        description="Fork ranks for the controller at HOST:PORT (`distparity run --wait-for-nodes`).",
    )
    parser.add_argument("controller", metavar="HOST:PORT", help="where the controller waits")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", required=True, help="the run's token; mode 0600"
    )
    parser.add_argument(
        "--interface", metavar="NAME", help="the interface for traffic between ranks"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to try to reach the controller (default %(default)s)",
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    from distparity.nodes import join, launched

    host, _, port = given.controller.rpartition(":")
    if not host or not port.isdecimal():
        raise BadRequest(f"{given.controller}: it is HOST:PORT")
    token = launched.token_in(given.token_file, make=False)
    where = {"address": host.strip("[]"), "port": int(port), "token": token}
    return join.serve(lambda: where, given.interface, given.wait)
