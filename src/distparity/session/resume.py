"""Go on after the last result of an interrupted run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distparity.core.bad_request import BadRequest
from distparity.core.outcome import Outcome
from distparity.results import journal
from distparity.session.placement import LOST

__all__ = ["results"]

#: Facts that describe a run, and not the torch, device and files that its outcomes depend on.
_OF_THE_RUN = {"command", "platform", "ranks_busy", "resumed", "deselected", "nodes"}


def results(path: Path, header: Mapping[str, Any]) -> dict[str, Outcome]:
    """The outcomes in a side file, by case, if ``header`` is that of the same run.

    Without those of cases that could not run because a node was lost. Raises :class:`BadRequest` if there is no side file, or if it is of another torch, device, options or
    declared cases; the message says in what they differ.
    """
    try:
        found = journal.read(path)
    except (OSError, ValueError) as error:
        raise BadRequest(f"--resume: there is nothing to resume: {error}") from None
    before, now = _plain(found.header), _plain(header)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            said = f"{name} was {_short(before.get(name))} and is {_short(now.get(name))}"
            raise BadRequest(f"--resume: {path} is of another run: {said}; run without --resume")
    done = {case: found.done[case] for case in header["cases"] if case in found.done}
    # What could not run because a node was lost may have its nodes again.
    return {case: one for case, one in done.items() if LOST not in one.facts}


def _plain(header: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same, as JSON has it."""
    facts = {name: one for name, one in header["facts"].items() if name not in _OF_THE_RUN}
    options = {f"the option {name}": one for name, one in header.get("options", {}).items()}
    kept = {"the list of cases": header["cases"], "the share": header.get("shard"), **options}
    found: dict[str, Any] = json.loads(json.dumps({**facts, **kept}))
    return found


def _short(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)
