"""``distparity list``: list the ids of cases."""

from __future__ import annotations

import argparse
import json
from typing import Any

from distparity.core.bad_request import BadRequest
from distparity.core.torch_facts import TorchFacts
from distparity.session import arguments, declared
from distparity.session.case_list import DEFAULT_WORLD_SIZES, asked_for
from distparity.worlds.launcher import Launcher, StartError

#: The ids do not depend on the device.
_DEVICE = "cpu"


def add(commands: Any) -> None:
    parser = commands.add_parser("list", help="list the ids of cases")
    parser.add_argument(
        "pattern", nargs="*", help="only these ids, scenarios, families or patterns"
    )
    arguments.declare(parser.add_argument, "--select", "--world-size", "--scenario", "--include")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(act=_act, device=None)


def _ask(include: list[str]) -> TorchFacts:
    launcher = Launcher(include)
    try:
        return launcher.ready()
    except StartError as error:
        raise BadRequest(str(error), error.detail) from None
    finally:
        launcher.close(reported=True)


def _act(given: argparse.Namespace) -> int:
    given.case = given.pattern
    options = arguments.options(given)
    # Torch is imported only for scenarios that are not shipped.
    torch = _ask(options.include) if options.include else declared.read()
    sizes = options.world_sizes or list(DEFAULT_WORLD_SIZES)
    found = asked_for(torch, [_DEVICE], sizes, options)
    if given.json:
        print(
            json.dumps(
                [{"id": c.id, "family": torch.families[c.scenario], **c.facts} for c in found]
            )
        )
    else:
        print("\n".join(case.id for case in found))
    return 0
