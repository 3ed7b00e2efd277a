"""One case from beginning to end, as an errand for the scheduler."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.core.refusal import TORCH
from distparity.worlds.scheduler import Errand, Shared
from distparity.worlds.world import Answer, Failure, Spec, Task

__all__ = ["JUDGE", "SEED", "Question", "evaluate"]

#: Every run of every case begins with this.
SEED = 20240917

#: Where the oracle is trained and verdicts are reached: one process, no process group.
JUDGE = Spec("cpu", 1, group=False)

_STATUS = {"raised": Status.FAILED, "crash": Status.CRASH, "timeout": Status.TIMEOUT}


@dataclass
class Question:
    """What torch is asked before a case runs."""

    #: The features that limits are declared for.
    features: list[str]
    #: The scenario whose training is the question; a strategy's smallest training when None.
    scenario: str | None


class _Reference(NamedTuple):
    """The runs that a case is held against, as bytes, and what they showed of the device."""

    runs: list[bytes]
    facts: dict[str, Any]


def evaluate(
    case: Case,
    limit: float,
    ask: Question | None = None,
    *,
    resume_world_size: int | None = None,
    reduce_dtype: str | None = None,
    multiplies: bool = False,
    mutant: str | None = None,
    seed: int = SEED,
    fresh: bool = False,
    alive: bool = True,
) -> Errand[Outcome]:
    """Ask whether the case can run here, run it, and reach a verdict.

    ``limit`` is the number of seconds that any one task of the case may take. ``ask`` is there where
    the strategy declares a limit, so that torch is asked about it first.
    ``resume_world_size`` is how many ranks take over after the reload, in a world of their own, where that
    is another one. ``reduce_dtype`` is the dtype in which gradients are exchanged where it is not the case's own, and
    ``multiplies`` whether they go through products of matrices on the way.
    ``mutant`` names a deliberate fault to train with. ``fresh`` has the case trained in a world
    that has done nothing else. ``alive`` is False where a scenario need not be evidence: with
    another seed than its own it may not be, and is rounded like any other.
    """
    worlds = (
        [case.world_size] if resume_world_size is None else [case.world_size, resume_world_size]
    )
    refusal = yield from _refusal(case, ask, limit)
    if refusal is not None:
        return refusal
    args = {
        "scenario": case.scenario,
        "strategy": case.strategy,
        "device": case.device,
        "dtype": case.dtype,
        "parts": max(worlds),
        "worlds": worlds,
        "reduce_dtype": reduce_dtype,
        "multiplies": multiplies,
        "seed": seed,
        "mutant": mutant,
    }
    key = (case.scenario, case.dtype, max(worlds), seed)
    reference = yield Shared(
        ("reference", case.device, reduce_dtype, multiplies, *key),
        lambda: _reference(case, args, key, limit, alive=alive),
    )
    if isinstance(reference, Outcome):
        return reference
    runs = yield from _train(case, args, limit, fresh=fresh)
    if isinstance(runs, Failure):
        return _failed(case, runs)
    ranks = [blobs[0] for run in runs for blobs in run.blobs]
    args["ranks"] = len(ranks)
    judged = yield Task(JUDGE, "judge", args, [*reference.runs, *ranks], limit=limit)
    if isinstance(judged, Failure):
        return _broken("the verdict", judged)
    outcome = _outcome(case, judged.results[0], runs)
    return replace(outcome, facts={**outcome.facts, **reference.facts})


def _train(
    case: Case, args: dict[str, Any], limit: float, *, fresh: bool
) -> Errand[list[Answer] | Failure]:
    """Train the case in one world after the other; if there are several they share a folder."""
    runs: list[Answer] = []
    shared = len(args["worlds"]) > 1
    with tempfile.TemporaryDirectory(prefix="distparity-") if shared else nullcontext() as folder:
        for phase, size in enumerate(args["worlds"]):
            more = {**args, "phase": phase, "folder": folder}
            world = Spec(case.device, size)
            run: Answer | Failure = yield Task(world, "parity", more, limit=limit, fresh=fresh)
            if isinstance(run, Failure):
                return run
            runs.append(run)
    return runs


def _refusal(case: Case, ask: Question | None, limit: float) -> Errand[Outcome | None]:
    """What makes the case impossible here, by torch's own word; None when nothing does."""
    if ask is None:
        return None
    world = Spec(case.device, case.world_size)
    question = {"strategy": case.strategy, "dtype": case.dtype, "parts": case.world_size}
    question |= {"features": ask.features, "scenario": ask.scenario, "seed": SEED}
    key = ("ask", world, case.strategy, case.dtype, ask.scenario, *ask.features)
    refused = yield Shared(key, lambda: _ask(question, world, limit))
    if refused is None:
        return None
    return Outcome(Status.NOT_SUPPORTED, refused, facts=case.facts)


def _ask(question: dict[str, Any], world: Spec, limit: float) -> Errand[Any]:
    # The world ends with the question: a refusal may leave it in any state.
    done = yield Task(world, "ask", question, limit=limit, last=True)
    if isinstance(done, Failure):
        # No refusal that was declared: the case itself shows what it is.
        return None
    refusals = [result["refused"] for result in done.results if result["refused"]]
    return refusals[0] if refusals else None


def _reference(
    case: Case, args: dict[str, Any], key: tuple[Any, ...], limit: float, *, alive: bool
) -> Errand[_Reference | Outcome]:
    """What a case is held against; the outcome instead where there is nothing."""
    oracle = yield Shared(("oracle", *key), lambda: _single("consult", args, JUDGE, limit))
    if isinstance(oracle, Failure):
        return _alone(case, "the oracle", oracle)
    if oracle.results[0]["faults"]:
        return _no_evidence(case, oracle.results[0]["faults"])
    # The native runs need the case's device, and no other rank.
    place = JUDGE if case.device == "cpu" else Spec(case.device, 1, group=False)
    reference_runs = yield Task(place, "reference_runs", args, limit=limit)
    if isinstance(reference_runs, Failure):
        return _alone(case, "the native runs", reference_runs)
    runs = [*oracle.blobs[0], *reference_runs.blobs[0]]
    if alive:
        looked = yield Task(JUDGE, "alive", args, runs, limit=limit)
        if isinstance(looked, Failure):
            return _broken("looking at the scenario", looked)
        found = looked.results[0]
        # A device that computes wrong numbers can make any scenario look dead.
        if found["wrong"]:
            return _wrong_in_one_process(case, found["wrong"])
        if found["faults"]:
            return _no_evidence(case, found["faults"])
        return _Reference(runs, {**reference_runs.results[0], **found["facts"]})
    return _Reference(runs, reference_runs.results[0])


def _wrong_in_one_process(case: Case, wrong: list[str]) -> Outcome:
    """The device's own fault, whatever ranks make of it."""
    message = f"this device computes wrong numbers in one process: {wrong[0]}"
    facts = {**case.facts, "one_process": "wrong"}
    return Outcome(Status.FAILED, message, "\n".join(wrong), facts)


def _no_evidence(case: Case, faults: list[str]) -> Outcome:
    message = f"the scenario {case.scenario!r} is no evidence: {faults[0]}"
    return Outcome(Status.ERROR, message, "\n".join(faults), case.facts)


def _single(task: str, args: dict[str, Any], place: Spec, limit: float) -> Errand[Any]:
    done: Answer | Failure = yield Task(place, task, args, limit=limit)
    return done


def _failed(case: Case, failure: Failure, message: str | None = None) -> Outcome:
    facts = {**case.facts, "known_after": round(failure.after, 2)}
    if failure.kind == "raised":
        facts["raised_by"] = failure.origin
    return Outcome(_STATUS[failure.kind], message or failure.message, failure.detail, facts)


def _alone(case: Case, what: str, failure: Failure) -> Outcome:
    """What a case is whose reference run failed: torch's failure in one process, or an error of ours."""
    if failure.kind == "timeout" or (failure.kind == "raised" and failure.origin != TORCH):
        return _broken(what, failure)
    found = _failed(case, failure, f"in one process, {what}: {failure.message}")
    return replace(found, facts={**found.facts, "reference_run": what})


def _broken(what: str, failure: Failure) -> Outcome:
    return Outcome(Status.ERROR, f"{what}: {failure.message}", failure.detail)


def _outcome(case: Case, verdict: dict[str, Any], runs: list[Answer]) -> Outcome:
    facts: dict[str, Any] = {
        **case.facts,
        "ratio": verdict["ratio"],
        "largest_error": verdict["error"],
        "growth": verdict["growth"],
        "seconds_in_ranks": round(sum(run.seconds for run in runs), 4),
    }
    left = "; ".join(run.left for run in runs if run.left)
    if left:
        facts["left_behind"] = left
    memory = [r["peak_memory"] for run in runs for r in run.results if r.get("peak_memory")]
    if memory:
        facts["peak_memory"] = max(memory)
    if verdict["passed"]:
        return Outcome(Status.PASSED, f"ratio {_short(verdict['ratio'])}", facts=facts)
    if verdict["diagnosis"] is not None:
        facts["diagnosis"] = verdict["diagnosis"]
    rows = ["largest ratio of error to allowed, by step:"]
    for step, row in enumerate(verdict["growth"]):
        rows.append(f"  step {step}: " + ", ".join(f"{k} {_short(v)}" for k, v in row.items()))
    looks = [f"looks like: {verdict['diagnosis']}"] if verdict["diagnosis"] else []
    return Outcome(Status.FAILED, verdict["first"], "\n".join([*looks, *rows]), facts)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
