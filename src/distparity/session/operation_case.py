"""An operation's case from beginning to end, as an errand for the scheduler."""

from __future__ import annotations

from typing import Any

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.session.training_case import JUDGE, SEED
from distparity.worlds.scheduler import Errand
from distparity.worlds.world import Failure, Spec, Task

__all__ = ["operate"]

_STATUS = {"raised": Status.FAILED, "crash": Status.CRASH, "timeout": Status.TIMEOUT}
#: So many refused or diverged checks are told one by one.
_MOST_TOLD = 8


def operate(
    case: Case,
    limit: float,
    found: dict[str, Any],
    *,
    mutant: str | None = None,
    seed: int = SEED,
    fresh: bool = False,
) -> Errand[Outcome]:
    """Do the operation in a world, and hold what every rank got against plain arithmetic.

    ``found`` is what the probe found of the case's device; the rest is as for
    :func:`distparity.session.training_case.evaluate`.
    """
    args = {
        "operation": case.scenario,
        "way": case.strategy,
        "dtype": case.dtype,
        "ranks": case.world_size,
        "seed": seed,
    }
    world = Spec(case.device, case.world_size)
    run = yield Task(world, "operate", {**args, "mutant": mutant}, limit=limit, fresh=fresh)
    if isinstance(run, Failure):
        facts = {**case.facts, "known_after": round(run.after, 2)}
        if run.kind == "raised":
            facts["raised_by"] = run.origin
        return Outcome(_STATUS[run.kind], run.message, run.detail, facts)
    weighing = {
        **args,
        "raised": [result["raised"] for result in run.results],
        "whose": [result["whose"] for result in run.results],
        "device_type": found["type"],
        "no_reductions": found["no_reductions"],
        "refuses": found["refuses"],
    }
    blobs = [blobs[0] for blobs in run.blobs]
    judged = yield Task(JUDGE, "weigh", weighing, blobs, limit=limit)
    if isinstance(judged, Failure):
        return Outcome(Status.ERROR, f"the verdict: {judged.message}", judged.detail)
    facts = {**case.facts, "seconds_in_ranks": round(run.seconds, 4)}
    if run.left:
        facts["left_behind"] = run.left
    return _outcome(judged.results[0], facts)


def _outcome(verdict: dict[str, Any], facts: dict[str, Any]) -> Outcome:
    checks, refused, diverged = verdict["checks"], verdict["refused"], verdict["diverged"]
    facts["checks"] = checks - len(refused)
    if refused:
        facts["refused"] = "; ".join(_grouped(refused))
    if checks and len(refused) == checks:
        return Outcome(Status.NOT_SUPPORTED, _grouped(refused)[0], facts=facts)
    facts.update(ratio=verdict["ratio"], largest_error=verdict["error"])
    if verdict["passed"]:
        if not checks:
            return Outcome(Status.ERROR, "nothing was checked", facts=facts)
        ratio = verdict["ratio"]
        return Outcome(Status.PASSED, f"{facts['checks']} checks, ratio {ratio:.3g}", facts=facts)
    facts["diverged"] = "; ".join(diverged)
    told = f"{len(diverged)} of {checks} checks diverged: {'; '.join(diverged)}"
    return Outcome(Status.FAILED, verdict["first"], told, facts)


def _grouped(refused: dict[str, str]) -> list[str]:
    """Each fact once, with the checks that it concerns."""
    facts: dict[str, list[str]] = {}
    for check, fact in refused.items():
        facts.setdefault(fact, []).append(check)
    return [f"{fact} ({_some(checks)})" for fact, checks in facts.items()]


def _some(checks: list[str]) -> str:
    if len(checks) <= _MOST_TOLD:
        return "; ".join(checks)
    return f"{'; '.join(checks[:_MOST_TOLD])}; and {len(checks) - _MOST_TOLD} more"
