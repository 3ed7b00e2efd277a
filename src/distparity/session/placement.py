"""Run a case in worlds that lie on several nodes, and record where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from distparity.core.outcome import Outcome, Status
from distparity.results import pairs
from distparity.worlds.fleet import NotPlaced
from distparity.worlds.scheduler import Job
from distparity.worlds.world import Answer, Failure, Spec, Task

__all__ = ["Way", "merged", "of_pairs", "placed"]


#: The fact of an outcome: the nodes without which the case could not run any more.
LOST = "lost_nodes"


class Way(NamedTuple):
    """How a case's worlds lie on nodes: by a placement, or on a pair of nodes, by their numbers.

    ``devices`` are the indices of a pair's devices; without them, any.
    """

    name: str
    pair: tuple[int, ...] = ()
    devices: tuple[int, ...] = ()

    def of(self, spec: Spec) -> Spec:
        """The world to make in place of ``spec``."""
        if not self.pair:
            return replace(spec, placement=self.name)
        nodes = tuple(self.pair[rank % 2] for rank in range(spec.size))
        devices = self.devices if spec.size == len(self.devices) else ()
        return replace(spec, placement="spread", nodes=nodes, devices=devices)


def placed(job: Job[Outcome], way: Way, device: str) -> Job[Outcome]:
    """A case whose worlds with a process group all lie on nodes in this way.

    The outcome has the facts: the placement, and each rank's node and device.
    """
    where: list[tuple[tuple[str, int], ...]] = []
    try:
        outcome = yield from _with(job, way, where)
    except NotPlaced as refused:
        outcome = Outcome(Status.NOT_AVAILABLE, str(refused))
        if refused.lost:
            # It was declared when they were there: whoever counts what was judged must know.
            outcome.facts[LOST] = " ".join(refused.lost)
    facts: dict[str, Any] = {"placement": way.name}
    if where:
        facts["nodes"] = " then ".join(" ".join(name for name, _ in world) for world in where)
        facts["devices"] = " then ".join(
            " ".join(device if device == "cpu" else f"{device}:{index}" for _, index in world)
            for world in where
        )
        if outcome.status.bad:
            outcome = replace(outcome, detail=_with_places(outcome.detail, facts))
    return replace(outcome, facts={**outcome.facts, **facts})


def _with_places(detail: str, facts: dict[str, Any]) -> str:
    """The text of a failure, and where its ranks were."""
    lines = [f"ranks, {facts['placement']}: nodes {facts['nodes']}; devices {facts['devices']}"]
    return "\n\n".join([*filter(None, [detail]), *lines])


def _with(job: Job[Outcome], way: Way, where: list[tuple[tuple[str, int], ...]]) -> Job[Outcome]:
    done: Any = None
    error: Exception | None = None
    while True:
        try:
            wanted = job.send(done) if error is None else job.throw(error)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome
        if isinstance(wanted, Task) and wanted.spec.group:
            wanted = replace(wanted, spec=way.of(wanted.spec))
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


def of_pairs(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a case that ran on every pair of nodes: of the first pair that did not pass."""
    # A node with one device is not tested by itself.
    alone = [one for one in outcomes if pairs.alone(str(one.facts["placement"]))]
    ran = [one for one in outcomes if one.status is not Status.NOT_AVAILABLE or one not in alone]
    wrong = [one for one in ran if one.status.bad or one.status is Status.NOT_AVAILABLE]
    others = [one for one in ran if one.status is not Status.PASSED]
    found = next(iter([*wrong, *others, *ran, *outcomes]))
    facts = {name: value for name, value in found.facts.items() if name != "placement"}
    facts[pairs.RAN] = "; ".join(str(one.facts["placement"]) for one in ran)
    facts[pairs.WRONG] = "; ".join(str(one.facts["placement"]) for one in wrong)
    if not wrong:
        return replace(found, facts=facts)
    return replace(found, message=f"on {found.facts['placement']}: {found.message}", facts=facts)
