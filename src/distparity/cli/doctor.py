"""``distparity doctor``: check this machine, torch and devices, and say what to do next."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from distparity.nodes import launched
from distparity.session import arguments, doctor, nodes_doctor
from distparity.session.options import Options


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor", help="check this machine, torch and devices; say whether a run would work"
    )
    where = ("--device", "--device-plugin", "--share-devices", "--backend")
    arguments.declare(parser.add_argument, *where, "--include", "--interface", "--report-dir")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    options = arguments.options(given)
    launch = launched.found(os.environ)
    if launch is None:
        report = doctor.doctor(options)
    elif launch.rank:
        return nodes_doctor.serve(launch, options, given.interface, lambda: doctor.doctor(options))
    else:
        report = _among_nodes(launch, options, given)
    if given.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print("\n".join(doctor.lines(report)))
    return 0 if report.works else 1


def _among_nodes(
    launch: launched.Launch, options: Options, given: argparse.Namespace
) -> doctor.Report:
    """Look at what lies between the nodes, then have each examine itself."""
    consultation = nodes_doctor.Consultation(launch, options, given.interface)
    steps = []
    try:
        for step in consultation.network():
            steps.append(step)
            if not given.json:
                # At once: what comes after it may take long.
                print("\n".join(doctor.of_step("", step)), flush=True)
        consultation.begin()
        report = doctor.doctor(options)
        for step in consultation.examined():
            steps.append(step)
            if not given.json:
                print("\n".join(doctor.of_step("", step)), flush=True)
    finally:
        consultation.close()
    report.nodes = steps
    return report
