"""``distparity doctor``: check this machine, torch and devices, and say what to do next."""

from __future__ import annotations

import argparse
import json
from typing import Any

from distparity.session import doctor
from distparity.session.options import Options


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor", help="check this machine, torch and devices; say whether a run would work"
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        help="kind of device (default: all known kinds); may be repeated",
    )
    parser.add_argument("--device-plugin", action="append", default=[], metavar="MODULE:OBJECT")
    parser.add_argument("--share-devices", nargs="?", const="auto", metavar="WAY")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    named = [word for value in given.device for word in value.split(",") if word]
    options = Options(
        devices=named or ["auto"],
        plugins=given.device_plugin,
        sharing=given.share_devices,
        known_defects=True,
    )
    report = doctor.doctor(options)
    if given.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print("\n".join(doctor.lines(report)))
    return 0 if report.works else 1
