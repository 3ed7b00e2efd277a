"""The case of a training from beginning to end, as a job for the scheduler."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from distparity.core.assignment import Judging, Question, Stored, Training
from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.judgement import Judgement, Quantity
from distparity.core.marks import Mark
from distparity.core.outcome import Outcome, Status
from distparity.core.refusal import TORCH
from distparity.core.spool import Spool, Spools
from distparity.session import distribution
from distparity.session.findings import with_findings
from distparity.worlds.scheduler import Job, Shared
from distparity.worlds.world import Answer, Failure, Spec, Task

__all__ = ["JUDGE", "SEED", "broken", "evaluate", "failed", "marks", "plain", "spell_training"]

#: The seed of every run of every case.
SEED = 20240917

#: The world that trains the oracle and computes verdicts: one process, no process group.
JUDGE = Spec("cpu", 1, group=False)

_STATUS = {"raised": Status.FAILED, "crash": Status.CRASH, "timeout": Status.TIMEOUT}


class _Reference(NamedTuple):
    """The runs that a case is compared with, in a file, and what they showed about the device."""

    runs: Stored
    facts: dict[str, Any]


def evaluate(
    case: Case,
    training: Training,
    limit: float,
    spools: Spools,
    ask: Question | None = None,
    *,
    fresh: bool = False,
    alive: bool = True,
) -> Job[Outcome]:
    """Check whether the case can run here, run it, and judge it.

    ``limit`` is the time limit of each task of the case, in seconds. ``spools`` has the files in which
    trajectories go from the ranks to the judge; they never pass through the controller. ``ask`` is given if the strategy
    declares a limit: torch is then asked about it first. With ``fresh``, the case trains in a new
    world. With ``alive=False``, the check that the scenario is evidence is left out: with another
    seed it need not be evidence, and its rounding errors still count.
    """
    refusal = yield from _refusal(case, ask, limit)
    if refusal is not None:
        return refusal
    common = replace(training, spool=spools.reference.path)
    reference = yield Shared(
        ("reference", *training.reference),
        lambda: _reference(case, common, limit, alive=alive),
    )
    if isinstance(reference, Outcome):
        return reference
    with contextlib.closing(spools.case()) as spool:
        runs = yield from _train(training, limit, spools, spool, fresh=fresh)
        if isinstance(runs, Failure):
            return failed(case, runs)
        judging = Judging(training, reference.runs, _places(spool.path, *runs))
        judged = yield Task(JUDGE, "judge", judging.to_json(), limit=limit)
    if isinstance(judged, Failure):
        return broken("the verdict", judged)
    outcome = _outcome(case, Judgement.from_json(judged.results[0]), runs)
    outcome = replace(outcome, facts={**outcome.facts, **reference.facts})
    return with_findings(distribution.checked(outcome, runs), runs)


def spell_training(
    case: Case, training: Training, first: Quantity | None, limit: float
) -> Job[str]:
    """Write a training as a program that needs torch alone, and return its text.

    It compares ``first``, the quantity that was the first to differ; None if a rank raised.

    Raises :class:`distparity.core.bad_request.BadRequest` if there is none for such a training.
    """
    world = Spec(case.device, case.world_size)
    asked = {
        "training": training.to_json(),
        "first": None if first is None else first.to_json(),
    }
    done = yield Task(world, "spell_training", asked, limit=limit)
    if isinstance(done, Failure):
        raise BadRequest(f"no program for {case.id}: {done.message}", done.detail)
    told = done.results[0]
    if told["program"] is None:
        raise BadRequest(f"no program for {case.id}: none is written for {told['why']}")
    return str(told["program"])


def _train(
    training: Training, limit: float, spools: Spools, spool: Spool, *, fresh: bool
) -> Job[list[Answer] | Failure]:
    """Train the case in one world after the other; several worlds share a folder."""
    runs: list[Answer] = []
    several = len(training.worlds) > 1
    shared = spools.directory() if several else contextlib.nullcontext()
    with shared as folder:
        for phase, size in enumerate(training.worlds):
            args = replace(training, phase=phase, folder=folder, spool=spool.path).to_json()
            world = Spec(training.device, size)
            run: Answer | Failure = yield Task(world, "parity", args, limit=limit, fresh=fresh)
            if isinstance(run, Failure):
                return run
            runs.append(run)
    return runs


def _places(path: str, *runs: Answer) -> Stored:
    """Where the ranks of these answers have stored their trajectories, in rank order."""
    return Stored(path, tuple(p for run in runs for told in run.results for p in told["places"]))


def _refusal(case: Case, ask: Question | None, limit: float) -> Job[Outcome | None]:
    """The outcome of a case that torch itself refuses; None if it does not refuse."""
    if ask is None:
        return None
    world = Spec(case.device, case.world_size)
    refused = yield Shared(("ask", world, ask), lambda: _ask(ask, world, limit))
    if refused is None:
        return None
    return Outcome(Status.NOT_SUPPORTED, refused, facts=case.facts)


def _ask(question: Question, world: Spec, limit: float) -> Job[Any]:
    # The world ends after the question: a refusal may leave it in any state.
    done = yield Task(world, "ask", question.to_json(), limit=limit, last=True)
    if isinstance(done, Failure):
        # Not a declared refusal: the case itself will show the failure.
        return None
    refusals = [result["refused"] for result in done.results if result["refused"]]
    return refusals[0] if refusals else None


def _reference(
    case: Case, training: Training, limit: float, *, alive: bool
) -> Job[_Reference | Outcome]:
    """The runs that a case is compared with; the outcome instead if they cannot be had."""
    args = training.to_json()
    oracle = yield Shared(
        ("oracle", *training.oracle), lambda: _single("consult", args, JUDGE, limit)
    )
    if isinstance(oracle, Failure):
        return _alone(case, "the oracle", oracle)
    if oracle.results[0]["faults"]:
        return _no_evidence(case, oracle.results[0]["faults"])
    # The reference runs need the case's device, and only one rank.
    where = JUDGE if case.device == "cpu" else Spec(case.device, 1, group=False)
    references = yield Task(where, "reference_runs", args, limit=limit)
    if isinstance(references, Failure):
        return _alone(case, "the reference runs", references)
    runs = _places(training.spool, oracle, references)
    facts = {name: value for name, value in references.results[0].items() if name != "places"}
    if alive:
        judging = Judging(training, runs).to_json()
        looked = yield Task(JUDGE, "alive", judging, limit=limit)
        if isinstance(looked, Failure):
            return broken("the check of the scenario", looked)
        found = looked.results[0]
        # A device that computes wrong numbers can make any scenario look like no evidence.
        if found["wrong"]:
            return _wrong_in_one_process(case, found["wrong"])
        if found["faults"]:
            return _no_evidence(case, found["faults"])
        return _Reference(runs, {**facts, **found["facts"]})
    return _Reference(runs, facts)


def _wrong_in_one_process(case: Case, wrong: list[str]) -> Outcome:
    """The outcome if one process on the device already computes wrong numbers."""
    message = f"this device computes wrong numbers in one process: {wrong[0]}"
    facts = {**case.facts, "one_process": "wrong"}
    failure = "failed in one process"
    return Outcome(Status.FAILED, message, "\n".join(wrong), facts, failure=failure)


def _no_evidence(case: Case, faults: list[str]) -> Outcome:
    message = f"the scenario {case.scenario!r} is no evidence: {faults[0]}"
    detail = "\n".join(faults) if len(faults) > 1 else ""
    return Outcome(Status.ERROR, message, detail, case.facts)


def _single(task: str, args: dict[str, Any], where: Spec, limit: float) -> Job[Any]:
    done: Answer | Failure = yield Task(where, task, args, limit=limit)
    return done


def broken(what: str, failure: Failure) -> Outcome:
    """The outcome of a case in which ``what``, a part of the harness, failed."""
    return Outcome(Status.ERROR, f"{what} failed: {failure.message}", failure.detail)


def failed(case: Case, failure: Failure) -> Outcome:
    """The outcome of a case whose ranks raised, died or did not answer."""
    facts = {**case.facts, "known_after": round(failure.after, 2)}
    if failure.kind == "raised":
        facts["raised_by"] = failure.origin
    status = _STATUS[failure.kind]
    known_by = tuple(Mark.of_words(failure.kind, account) for account in failure.accounts)
    return Outcome(
        status, failure.message, failure.detail, facts, failure=failure.kind, marks=known_by
    )


def _alone(case: Case, what: str, failure: Failure) -> Outcome:
    """The outcome of a case whose reference run failed: torch's failure, or an error of ours."""
    if failure.kind == "timeout" or (failure.kind == "raised" and failure.origin != TORCH):
        return broken(what, failure)
    found = failed(case, failure)
    message = f"{what} failed in one process: {failure.message}"
    facts = {**found.facts, "reference_run": what}
    return replace(found, message=message, facts=facts, failure="failed in one process")


def _reports(reports: list[str]) -> str:
    """What torch's own sanitizer of streams said: a fact, and no part of the verdict."""
    said = Counter(reports).most_common()
    first = "; ".join(f"{line} ({times} times)" for line, times in said[:3])
    return f"{len(reports)} reported" + (f": {first}" if first else "")


def _outcome(case: Case, found: Judgement, runs: list[Answer]) -> Outcome:
    growth = found.to_json()["growth"]
    facts: dict[str, Any] = {
        **case.facts,
        "ratio": plain(found.ratio),
        "largest_error": plain(found.error),
        "growth": growth,
        "seconds_in_ranks": round(sum(run.seconds for run in runs), 4),
    }
    left = "; ".join(run.left for run in runs if run.left)
    if left:
        facts["left_behind"] = left
    memory = [r["peak_memory"] for run in runs for r in run.results if r.get("peak_memory")]
    if memory:
        facts["peak_memory"] = max(memory)
    reports = [
        r["sanitizer"] for run in runs for r in run.results if r.get("sanitizer") is not None
    ]
    if reports:
        facts["sanitizer"] = _reports(list(chain.from_iterable(reports)))
    if found.passed:
        return Outcome(Status.PASSED, f"ratio {found.ratio:.3g}", facts=facts)
    looks = []
    if found.diagnosis is not None:
        facts["diagnosis"] = found.diagnosis
        looks = [f"looks like: {found.diagnosis}"]
    rows = ["largest ratio of error to allowed error, by step:"]
    for step, row in enumerate(found.growth):
        rows.append(f"  step {step}: " + ", ".join(f"{k} {v:.3g}" for k, v in row.items()))
    detail = "\n".join([*looks, *rows])
    return Outcome(
        Status.FAILED,
        found.message,
        detail,
        facts,
        failure="wrong numbers",
        first=found.first,
        marks=marks(found),
    )


def marks(found: Judgement) -> tuple[Mark, ...]:
    """What a failure with wrong numbers is known by."""
    return tuple(filter(None, map(Mark.of, found.samples)))


def plain(value: float) -> float | str:
    """A number as a fact: JSON has no infinity."""
    return value if math.isfinite(value) else str(value)
