"""Run a case in worlds that lie on several nodes, and record where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from distparity.core.outcome import Outcome, Status
from distparity.worlds.fleet import NotPlaced
from distparity.worlds.scheduler import Job
from distparity.worlds.world import Answer, Failure, Task

__all__ = ["merged", "placed"]


def placed(job: Job[Outcome], placement: str, device: str) -> Job[Outcome]:
    """A case whose worlds with a process group all have this placement.

    The outcome has the facts: the placement, and each rank's node and device.
    """
    where: list[tuple[tuple[str, int], ...]] = []
    try:
        outcome = yield from _with(job, placement, where)
    except NotPlaced as refused:
        outcome = Outcome(Status.NOT_AVAILABLE, str(refused))
    facts: dict[str, Any] = {"placement": placement}
    if where:
        facts["nodes"] = " then ".join(" ".join(name for name, _ in world) for world in where)
        facts["devices"] = " then ".join(
            " ".join(device if device == "cpu" else f"{device}:{index}" for _, index in world)
            for world in where
        )
    return replace(outcome, facts={**outcome.facts, **facts})


def _with(
    job: Job[Outcome], placement: str, where: list[tuple[tuple[str, int], ...]]
) -> Job[Outcome]:
    done: Any = None
    error: Exception | None = None
    while True:
        try:
            wanted = job.send(done) if error is None else job.throw(error)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome
        if isinstance(wanted, Task) and wanted.spec.group:
            wanted = replace(wanted, spec=replace(wanted.spec, placement=placement))
        done = error = None
        try:
            done = yield wanted
        except Exception as raised:
            error = raised
        if isinstance(done, (Answer, Failure)) and isinstance(wanted, Task) and wanted.spec.group:
            where.append(done.places)


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a case that ran with one placement after the other, until one did not pass."""
    last = outcomes[-1]
    if len(outcomes) == 1:
        return last
    facts = dict(last.facts)
    for name in ("placement", "nodes", "devices"):
        facts[name] = "; ".join(str(one.facts.get(name, "-")) for one in outcomes)
    ratios = [one.facts.get("ratio") for one in outcomes]
    numbers = [ratio for ratio in ratios if isinstance(ratio, (int, float))]
    if last.status is not Status.PASSED:
        return replace(last, message=f"{last.facts['placement']}: {last.message}", facts=facts)
    worst = outcomes[ratios.index(max(numbers))] if numbers else last
    kept: dict[str, Any] = {
        name: worst.facts[name]
        for name in ("ratio", "largest_error", "growth")
        if name in worst.facts
    }
    return replace(worst, facts={**facts, **kept})
