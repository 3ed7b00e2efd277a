"""The peak memory of each process of a case, by the size of its model.

``--layers`` are numbers of layers of a quarter of a million parameters each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from _measure import Table, environment, publish

from distparity.core.assignment import Training
from distparity.core.case import Case
from distparity.session.training_case import SEED, evaluate
from distparity.worlds.launcher import Launcher
from distparity.worlds.scheduler import Scheduler

TASKS = ("consult", "reference_runs", "alive", "parity", "judge")
MIB = 1 << 20


def measure(layers: int, ranks: int, limit: float) -> list[str]:
    """The row of one model: its parameters, outcome, and the peak of each task."""
    with tempfile.NamedTemporaryFile(mode="r", encoding="utf-8") as notes:
        os.environ.update(environment(), LARGE_LAYERS=str(layers), LARGE_NOTES=notes.name)
        launcher = Launcher(["large_model"])
        launcher.ready()
        scheduler = Scheduler(launcher, timeout=2 * limit)
        started = time.perf_counter()
        outcome = scheduler.run(
            evaluate(
                case := Case("large_model", "ddp", ranks, "float32", "cpu"),
                Training.of(case, SEED),
                limit,
                launcher.spools,
            )
        )
        seconds = time.perf_counter() - started
        scheduler.close()
        launcher.close(reported=True)
        found = list(map(json.loads, notes.read().splitlines()))
    peaks = [max((n["peak"] for n in found if n["task"] == task), default=0) for task in TASKS]
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(found, flush=True)
    return [
        f"{layers * 512 * 513 / 1e6:.1f} million",
        f"{outcome.status.value}: {outcome.message}",
        f"{seconds:.0f}",
        *(f"{peak / MIB:.0f}" for peak in [*peaks, own]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--limit", type=float, default=600.0)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table in FILE")
    given = parser.parse_args()
    heads = ["parameters", "outcome", "seconds", *TASKS, "controller"]
    table = Table("judge_memory", heads)
    for layers in given.layers:
        table.add(*measure(layers, given.ranks, given.limit))
        print(" ".join(table.rows[-1]), flush=True)
    table.notes = [
        "peak resident memory of the process that runs each task, and of the controller, in MiB",
        f"DDP at {given.ranks} ranks, float32, 2 steps, SGD with momentum",
    ]
    publish(table, given.markdown)


if __name__ == "__main__":
    main()
