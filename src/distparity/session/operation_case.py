"""The case of an operation from beginning to end, as a job for the scheduler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from distparity.core.assignment import Operating, Weighing
from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.judgement import Judgement
from distparity.core.outcome import Outcome, Status
from distparity.core.torch_facts import DeviceFacts
from distparity.session.findings import with_findings
from distparity.session.training_case import JUDGE, SEED, broken, failed, marks, plain
from distparity.worlds.scheduler import Job
from distparity.worlds.world import Failure, Spec, Task

__all__ = ["operate", "spell"]

#: The most refused or diverged checks that are listed by name.
_MOST_TOLD = 8


def operate(
    case: Case,
    limit: float,
    found: DeviceFacts,
    *,
    mutant: str | None = None,
    seed: int = SEED,
    fresh: bool = False,
    checks: tuple[str, ...] = (),
    largest: int | None = None,
    alone: bool = False,
) -> Job[Outcome]:
    """Call the operation in a world, and compare each rank's result with plain arithmetic.

    ``found`` is the case's device; ``limit`` is the time limit of a task, in seconds. ``mutant``
    names a deliberate fault to inject. With ``fresh``, the case runs in a new world. ``checks`` are the
    names of the only checks to make; empty for all. ``largest`` is as for :class:`Operating`. With
    ``alone``, the operation is called while nothing else runs.
    """
    what = Operating(
        case.scenario, case.strategy, case.dtype, case.world_size, seed, mutant, checks, largest
    )
    world = Spec(case.device, case.world_size)
    run = yield Task(world, "operate", what.to_json(), limit=limit, fresh=fresh, alone=alone)
    if isinstance(run, Failure):
        return failed(case, run)
    weighing = Weighing(
        what,
        tuple(result["raised"] for result in run.results),
        tuple(result["whose"] for result in run.results),
        found.type,
        found.no_reductions,
        found.refuses,
    )
    blobs = [blobs[0] for blobs in run.blobs]
    judged = yield Task(JUDGE, "weigh", weighing.to_json(), blobs, limit=limit)
    if isinstance(judged, Failure):
        return broken("the verdict", judged)
    facts = {**case.facts, "seconds_in_ranks": round(run.seconds, 4)}
    if run.left:
        facts["left_behind"] = run.left
    outcome = _outcome(Judgement.from_json(judged.results[0]), facts)
    traces = [result["traces"].get(check) for check in outcome.diverged for result in run.results]
    trace = next(filter(None, traces), "")
    outcome = replace(outcome, detail=f"{outcome.detail}\n\n{trace}" if trace else outcome.detail)
    return with_findings(outcome, [run])


def spell(case: Case, check: str | None, limit: float, seed: int = SEED) -> Job[str]:
    """Write a check as a program that needs torch alone, and return its text.

    ``check`` is None for the only check of a case. Raises :class:`distparity.core.bad_request.BadRequest` if there is none for such a check.
    """
    checks = () if check is None else (check,)
    what = Operating(case.scenario, case.strategy, case.dtype, case.world_size, seed, checks=checks)
    done = yield Task(JUDGE, "spell", what.to_json(), limit=limit)
    if isinstance(done, Failure):
        raise BadRequest(f"no program for {case.id}: {done.message}", done.detail)
    found: str | None = done.results[0]["program"]
    if found is None:
        which = "any one check" if check is None else repr(check)
        raise BadRequest(f"no program for {which} of {case.id}")
    return found


def _outcome(found: Judgement, facts: dict[str, Any]) -> Outcome:
    checks, refused = found.checks, found.refused
    facts["checks"] = checks - len(refused)
    if found.told:
        facts["sizes"] = dict(found.told)
        facts["largest"], facts["bandwidth"] = found.largest, found.bandwidth
    if refused:
        facts["refused"] = "; ".join(_grouped(refused))
    if checks and len(refused) == checks:
        return Outcome(Status.NOT_SUPPORTED, _grouped(refused)[0], facts=facts)
    facts.update(ratio=plain(found.ratio), largest_error=plain(found.error))
    if found.passed:
        if not checks:
            return Outcome(Status.ERROR, "nothing was checked", facts=facts)
        message = f"{facts['checks']} checks, ratio {found.ratio:.3g}"
        return Outcome(Status.PASSED, message, facts=facts)
    told = f"{len(found.diverged)} of {checks} checks diverged: {'; '.join(found.diverged)}"
    return Outcome(
        Status.FAILED,
        found.message,
        told,
        facts,
        failure="wrong numbers",
        first=found.first,
        diverged=found.diverged,
        marks=marks(found),
    )


def _grouped(refused: dict[str, str]) -> list[str]:
    """Each refusal once, with the checks that it concerns."""
    facts: dict[str, list[str]] = {}
    for check, fact in refused.items():
        facts.setdefault(fact, []).append(check)
    return [f"{fact} ({_some(checks)})" for fact, checks in facts.items()]


def _some(checks: list[str]) -> str:
    if len(checks) <= _MOST_TOLD:
        return "; ".join(checks)
    return f"{'; '.join(checks[:_MOST_TOLD])}; and {len(checks) - _MOST_TOLD} more"
