"""Check that a pass is evidence: the work was distributed over the world, on the cell's device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from distparity.core.outcome import Outcome, Status
from distparity.worlds.world import Answer

__all__ = ["checked", "fault"]


def checked(outcome: Outcome, runs: Sequence[Answer]) -> Outcome:
    """Add the facts of the distribution to an outcome; make a pass without evidence an error."""
    worlds = [[answer["distribution"] for answer in run.results] for run in runs]
    told = [rank for world in worlds for rank in world]
    facts = dict(outcome.facts)
    shared = max(rank["rows_shared_by"] for rank in told)
    if shared > 1:
        facts["rows_shared_by"] = shared
    if told[0]["parameters_on"] is not None:
        facts["parameters_on"] = told[0]["parameters_on"]
    if any(rank["talked"] is None for rank in told):
        facts["collectives"] = "not counted by this backend"
    wrong = next(filter(None, map(fault, worlds)), None)
    if wrong is None or outcome.status is not Status.PASSED:
        return replace(outcome, facts=facts)
    return Outcome(Status.ERROR, f"no evidence: {wrong}", facts=facts)


def fault(ranks: Sequence[dict[str, Any]]) -> str | None:
    """Why a pass proves nothing, in one line; None if it does prove something.

    ``ranks`` has the observations of each rank of one world
    (:class:`distparity.worker.distribution.Observer`).
    """
    for rank, told in enumerate(ranks):
        if told["elsewhere"]:
            where = ", ".join(told["elsewhere"])
            return f"rank {rank} has parameters on {where}; the case's device is {told['device']}"
    if len(ranks) == 1:
        return None
    return _rows(ranks) or _apart(ranks)


def _rows(ranks: Sequence[dict[str, Any]]) -> str | None:
    """Check that each row of the batch is on as many ranks as the strategy declares."""
    declared = ranks[0]["rows_shared_by"]
    counted = Counter(row for told in ranks for row in told["rows"])
    for row in range(ranks[0]["of"]):
        if counted[row] != declared:
            having = [str(rank) for rank, told in enumerate(ranks) if row in told["rows"]]
            who = f"ranks {', '.join(having)} train" if having else "no rank trains"
            return f"{who} on row {row} of the batch; the strategy declares {declared} per row"
    idle = [str(rank) for rank, told in enumerate(ranks) if not told["rows"]]
    return f"rank {idle[0]} has no rows" if idle else None


def _apart(ranks: Sequence[dict[str, Any]]) -> str | None:
    """Check that all ranks exchanged data, directly or through others."""
    if any(told["talked"] is None for told in ranks):
        return None
    if not any(told["talked"] for told in ranks):
        return f"no collective during training: the {len(ranks)} ranks never exchanged data"
    islands = {frozenset([rank]) for rank in range(len(ranks))}
    for group in (group for told in ranks for group in told["talked"]):
        joined = {island for island in islands if island & set(group)}
        islands = (islands - joined) | {frozenset().union(*joined)}
    if len(islands) == 1:
        return None
    told = " and ".join(str(sorted(island)) for island in sorted(islands, key=min))
    return f"the world of {len(ranks)} is split: ranks {told} exchanged no data during training"
