"""The cases in warm worlds, side by side as in the suite, but without pytest and reports."""

from __future__ import annotations

import sys

import _cases

from distparity.core.assignment import Training
from distparity.core.outcome import Outcome, Status
from distparity.session.training_case import SEED, evaluate
from distparity.worlds.launcher import Launcher
from distparity.worlds.scheduler import Job, Scheduler, Shared


def alone(job: Job[Outcome], number: int) -> Job[Outcome]:
    """The same job, sharing its oracle and reference runs with no other."""
    value = None
    while True:
        try:
            wanted = job.send(value)
        except StopIteration as stop:
            found: Outcome = stop.value
            return found
        if isinstance(wanted, Shared):
            wanted = Shared((number, wanted.key), wanted.make)
        value = yield wanted


def main() -> None:
    cases = _cases.asked()
    include = sorted({case.scenario for case in cases} - {_cases.SEED_CASE.scenario})
    launcher = Launcher(include)
    launcher.ready()
    scheduler = Scheduler(launcher)

    def job(number: int) -> Job[Outcome]:
        found = evaluate(cases[number], Training.of(cases[number], SEED), 60.0, launcher.spools)
        return alone(found, number) if "--alone" in sys.argv else found

    for _, outcome in scheduler.side_by_side(range(len(cases)), job):
        assert outcome.status is Status.PASSED, outcome
    scheduler.close()
    launcher.close(reported=True)


if __name__ == "__main__":
    main()
