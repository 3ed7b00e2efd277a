"""The cases of the suite that is shipped, for who wants their ids and not torch.

The ids are the same with every torch: what a torch lacks is *not supported* in a case of its own. So they
are in a file, which ``nox -s declared`` compares with what a process that imports torch finds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distparity.core.torch_facts import TorchFacts

__all__ = ["FILE", "read", "written"]

FILE = Path(__file__).with_suffix(".json")
#: What a file cannot know of a torch.
_OF_A_TORCH: dict[str, Any] = {
    "torch": "",
    "release": (0, 0),
    "git": None,
    "cuda": None,
    "hip": None,
    "xpu": None,
    "numpy": None,
    "gone": (),
    "collectives": (),
    "devices": (),
    "rounding": {},
    "mutants": {},
    "operation_faults": {},
}


def read() -> TorchFacts:
    """The scenarios, strategies and operations that are shipped; nothing about a torch."""
    return TorchFacts.from_json(json.loads(FILE.read_text("utf-8")))


def written(facts: TorchFacts) -> str:
    """The text of the file: of what a process that imported torch found, all that names cases."""
    strategies = {
        name: replace(how, file="", limits=(), lacks={}, needs=dict.fromkeys(how.needs, ""))
        for name, how in facts.strategies.items()
    }
    shipped = replace(
        facts,
        scenarios=_without_file(facts.scenarios),
        operations=_without_file(facts.operations),
        strategies=strategies,
        **_OF_A_TORCH,
    )
    tables = (f"{json.dumps(name)}: {_lines(what)}" for name, what in shipped.to_json().items())
    return "{{\n{}\n}}\n".format(",\n".join(tables))


def _without_file(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: replace(what, file="") for name, what in table.items()}


def _lines(what: Any) -> str:
    """JSON with a line for each entry of a table."""
    if not what or not isinstance(what, dict):
        return json.dumps(what)
    rows = (f"{json.dumps(name)}: {json.dumps(one)}" for name, one in what.items())
    return "{{\n{}\n}}".format(",\n".join(rows))
