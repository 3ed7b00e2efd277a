"""The cases that every harness runs here, and what a rank does with one.

A rank does the same under every harness, by distparity's own tasks: train the case, bring the
trajectories together, hold them against the oracle and the reference runs. So what differs between two
harnesses is the harness.
"""

from __future__ import annotations

import importlib
import itertools
import os
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distparity.core.assignment import Training
from distparity.core.case import Case
from distparity.core.outcome import Status
from distparity.core.spool import Spool, Spools
from distparity.session.training_case import SEED, evaluate
from distparity.worlds.scheduler import Job, Shared
from distparity.worlds.world import Answer, Task

__all__ = ["SEED_CASE", "asked", "forty", "names", "parse", "run_in_rank", "sample"]

#: Environment variable with the ids of the cases that a program is to run, with commas.
VARIABLE = "BENCHMARK_CASES"
SEED_CASE = Case("multiple_forward", "fsdp1", 2, "float32", "cpu")
STRATEGIES = ("ddp", "fsdp1", "fsdp1_orig_params", "fsdp2")
#: From this release on ``fully_shard`` runs on the CPU.
FSDP2_ON_CPU = (2, 7)

_SCENARIO = '''"""The seed scenario with other numbers."""

import torch

from distparity.scenarios import Scenario
from distparity.scenarios.calls.multiple_forward import MultipleForward


class Other{number}(MultipleForward, Scenario):
    dtypes = ("float32",)

    def model(self):
        torch.rand({number})
        return super().model()

    def batch(self, rows):
        torch.rand({number})
        return super().batch(rows)
'''


def forty(folder: Path, sizes: tuple[int, ...] = (2, 4), count: int = 40) -> list[Case]:
    """So many cases: every strategy at every world size, with as many other seeds as that takes.

    The seeds are scenarios, written to ``folder``: what makes each need an oracle of its own.
    """
    release = tuple(int(part) for part in version("torch").split(".")[:2])
    strategies = [name for name in STRATEGIES if name != "fsdp2" or release >= FSDP2_ON_CPU]
    seeds = -(-count // (len(strategies) * len(sizes)))
    for number in range(1, seeds + 1):
        (folder / f"seed_{number}.py").write_text(_SCENARIO.format(number=number))
    every = itertools.product(range(1, seeds + 1), strategies, sizes)
    cases = [
        Case(f"seed_{seed}", strategy, size, "float32", "cpu") for seed, strategy, size in every
    ]
    return cases[:count]


def sample(cases: list[Case], size: int) -> list[Case]:
    """Some of the cases, spread over strategies and world sizes alike."""
    return [cases[(i * len(cases) // size + i) % len(cases)] for i in range(size)]


def names(cases: list[Case]) -> str:
    return ",".join(case.id for case in cases)


def parse(text: str) -> Case:
    """Inverse of :attr:`Case.id`."""
    scenario, _, rest = text.partition("/")
    strategy, size, dtype = rest.rsplit("-", 2)
    return Case(scenario, strategy, int(size.removeprefix("ws")), dtype, "cpu")


def asked() -> list[Case]:
    """The cases that this program is to run."""
    return [parse(word) for word in os.environ[VARIABLE].split(",") if word]


# -- in a rank -------------------------------------------------------------------------------------


def prepare() -> None:
    """Import what defines this program's cases, in a process that has torch."""
    import torch

    torch.set_num_threads(1)
    for name in {case.scenario for case in asked()} - {SEED_CASE.scenario}:
        importlib.import_module(name)


def context(rank: int, world_size: int) -> Any:
    import torch

    from distparity import devices
    from distparity.devices.context import RankContext

    return RankContext(rank, world_size, torch.device("cpu"), devices.get("cpu"))


_known: dict[Any, Any] = {}


class _Filled(Spools):
    """The ranks have filled a case's file before the case asks for it."""

    filled: Spool

    def case(self) -> Spool:
        return self.filled


_spools = _Filled(tempfile.gettempdir())


def run_in_rank(case: Case, rank: int) -> None:
    """Train a case in a process group that is there; rank 0 judges and raises ``AssertionError``."""
    import torch.distributed as dist

    from distparity.worker.tasks import TASKS

    training = Training.of(case, SEED)
    path = [""]
    if rank == 0:
        _spools.filled = Spools.case(_spools)
        path = [_spools.filled.path]
    dist.broadcast_object_list(path, src=0)
    here = context(rank, case.world_size)
    result, _ = TASKS["parity"](here, replace(training, spool=path[0]).to_json(), [])
    gathered: list[Any] | None = [None] * case.world_size if rank == 0 else None
    dist.gather_object(result, gathered)
    if gathered is not None:
        run = Answer(gathered, [[] for _ in gathered], 0.0)
        outcome = _here(evaluate(case, training, 60.0, _spools), run)
        assert outcome.status is Status.PASSED, outcome


def _here(job: Job[Any], run: Answer) -> Any:
    """A job in this process; ``run`` is what the case's ranks have answered already.

    What strategies share (the oracle, the reference runs) is kept while the process lives.
    """
    value = None
    while True:
        try:
            wanted = job.send(value)
        except StopIteration as stop:
            return stop.value
        if isinstance(wanted, Shared):
            if wanted.key not in _known:
                _known[wanted.key] = _here(wanted.make(), run)
            value = _known[wanted.key]
        else:
            value = run if wanted.name == "parity" else _task(wanted)


def _task(task: Task) -> Answer:
    from distparity.worker.tasks import TASKS

    result, blobs = TASKS[task.name](context(0, 1), task.args, task.blobs)
    return Answer([result], [blobs], 0.0)
