"""``distparity doctor``: check this machine, torch and devices, and say what to do next."""

from __future__ import annotations

import argparse
import json
from typing import Any

from distparity.session import arguments, doctor


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor", help="check this machine, torch and devices; say whether a run would work"
    )
    where = ("--device", "--device-plugin", "--share-devices", "--backend")
    arguments.declare(parser.add_argument, *where, "--include")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    report = doctor.doctor(arguments.options(given))
    if given.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print("\n".join(doctor.lines(report)))
    return 0 if report.works else 1
