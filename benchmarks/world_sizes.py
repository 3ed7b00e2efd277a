"""What a case costs in a warm world of 2, 4, 8 and 16 ranks on this machine, and where it goes.

Milliseconds per case, all of it measured in the ranks but for the first column: a rank's main
thread computes ("own"), its other threads move bytes ("gloo"), and the rest of its time it waits,
for other ranks or for a core. "least" is what the CPU time of all ranks takes on this machine's
cores: no scheduling could make the case faster, only less work.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from _cases import STRATEGIES
from _measure import Series, Table, arguments, environment, publish

from distparity.core.assignment import Training
from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.session.training_case import SEED, evaluate
from distparity.worlds.launcher import Launcher
from distparity.worlds.scheduler import Job, Scheduler
from distparity.worlds.world import Answer, Failure, Spec, Task

TIMED = "timed_parity"
HEADINGS = (
    "ranks",
    "strategy",
    "case, ms",
    "training",
    "own",
    "gloo",
    "waiting",
    "least",
    "serialise",
    "judge",
    "hand-out",
    "collectives",
    "an all-reduce, ms",
)


class Bench:
    """A launcher with the timed tasks, and one world at a time."""

    def __init__(self) -> None:
        os.environ.update(environment())
        self.launcher = Launcher(["_timed"])
        self.launcher.ready()
        self.scheduler = Scheduler(self.launcher, room=64)

    def ask(self, task: Task) -> Answer:
        def job() -> Job[Answer | Failure]:
            done: Answer | Failure = yield task
            return done

        done = self.scheduler.run(job())
        if isinstance(done, Failure):
            raise SystemExit(done.detail)
        found: Answer = done
        return found

    def close(self) -> None:
        self.scheduler.close()
        self.launcher.close(reported=True)


def measure(bench: Bench, case: Case, repeat: int) -> dict[str, Series]:
    """Run a case several times in one world; each quantity in seconds."""
    found: dict[str, Series] = {}
    # Once more than is counted: the first has the oracle to wait for, and caches to warm up.
    for turn in range(repeat + 1):
        tape: dict[str, Answer] = {}
        started = time.perf_counter()
        job = evaluate(case, Training.of(case, SEED), 60.0, bench.launcher.spools)
        outcome = bench.scheduler.run(_taped(job, tape))
        seconds = time.perf_counter() - started
        assert outcome.status is Status.PASSED, outcome
        for name, value in _parts(seconds, tape[TIMED], tape["judge"]).items():
            if turn:
                found.setdefault(name, Series()).values.append(value)
    return found


def _taped(job: Job[Outcome], tape: dict[str, Answer]) -> Job[Outcome]:
    """The same job with the timed training in place of the plain one; keeps the answers."""
    value = None
    while True:
        try:
            wanted = job.send(value)
        except StopIteration as stop:
            found: Outcome = stop.value
            return found
        if isinstance(wanted, Task) and wanted.name == "parity":
            wanted = replace(wanted, name=TIMED)
        value = yield wanted
        if isinstance(wanted, Task):
            tape[wanted.name] = value


def _parts(seconds: float, run: Answer, judged: Answer) -> dict[str, float]:
    def mean(pick: Callable[[dict[str, Any]], float]) -> float:
        return statistics.mean(map(pick, run.results))

    cpu = sum(result["own"] + result["others"] for result in run.results)
    return {
        "case": seconds,
        "training": max(result["train"] for result in run.results),
        "own": mean(lambda r: r["own"]),
        "gloo": mean(lambda r: r["others"]),
        "waiting": mean(lambda r: r["train"] + r["serialise"] - r["own"]),
        "least": cpu / min(len(run.results), os.cpu_count() or 1),
        "serialise": mean(lambda r: r["serialise"]),
        "judge": judged.seconds,
        "hand-out": seconds - run.seconds - judged.seconds,
    }


def main() -> None:
    parser = arguments(__doc__, repeat=9)
    parser.add_argument("--world-size", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--strategy", nargs="+", default=list(STRATEGIES))
    given = parser.parse_args()
    table = Table("world_sizes", HEADINGS)
    bench = Bench()
    for size in given.world_size:
        world = Spec("cpu", size)
        latency = bench.ask(Task(world, "all_reduce", {"times": 200}))
        once = max(result["seconds"] for result in latency.results)
        for strategy in given.strategy:
            case = Case("multiple_forward", strategy, size, "float32", "cpu")
            plan = replace(Training.of(case, SEED), spool=bench.launcher.spools.reference.path)
            counted = bench.ask(Task(world, "count_collectives", plan.to_json()))
            found = measure(bench, case, given.repeat)
            middle = [f"{statistics.median(s.values) * 1000:.3g}" for s in found.values()][1:]
            count = counted.results[0]["collectives"]
            case_ms = found["case"].scaled(1000)
            table.add(size, strategy, case_ms, *middle, count, f"{once * 1000:.2g}")
            print(" ".join(table.rows[-1]), flush=True)
    bench.close()
    table.notes = [
        (
            f"The seed case in float32; median of {given.repeat} cases in one world, for the whole "
            "case with (smallest - largest)."
        ),
    ]
    publish(table, given.markdown)


if __name__ == "__main__":
    main()
