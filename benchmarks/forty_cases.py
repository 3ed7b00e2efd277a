"""The same 40 cases from start to end: here, under PyTorch's harnesses, under ``torchrun``, alone.

Every strategy at world sizes 2 and 4, with as many seeds as make 40 cases; whole processes, from
start to exit. A harness that starts fresh ranks for each case takes minutes: a sample of its cases
is measured, and what is extrapolated from that is marked as such. ``--sample 0`` runs them all.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from _cases import STRATEGIES, VARIABLE, forty, names, sample
from _measure import HERE, Series, Table, arguments, bare_import, environment, publish, rounds, wall

from distparity.core.case import Case

OURS = "distparity (pytest, reports and all)"
CONTINUOUS = "MultiProcContinuousTest"
FLOOR = "the floor: training alone, 1 process"


class Forty:
    """The cases, the folder with their scenarios, and each way to run them."""

    def __init__(self, folder: Path, part: int) -> None:
        self.folder = folder
        self.cases = forty(folder)
        self.part = sample(self.cases, part) if part else self.cases
        self.in_ranks: list[float] = []

    def program(self, name: str, cases: list[Case]) -> float:
        env = environment(self.folder, **{VARIABLE: names(cases)})
        return wall([str(HERE / f"_under_{name}.py")], env)

    def ours(self) -> float:
        """The suite as its users start it."""
        files = sorted(self.folder.glob("seed_*.py"))
        command = ["-m", "pytest", "-q", "-p", "distparity.pytest_plugin.plugin", "-c", "/dev/null"]
        command += [f"--rootdir={self.folder}", "--device=cpu", "--world-size=2,4", "--cell=bench"]
        command += [f"--report-dir={self.folder / 'reports'}"]
        command += ["-k", " or ".join(f"/{strategy}-ws" for strategy in STRATEGIES)]
        for file in files:
            command += ["--include", file.stem, str(file)]
        seconds = wall(command, environment(self.folder), self.folder)
        self.in_ranks.append(self._in_ranks())
        return seconds

    def _in_ranks(self) -> float:
        """Seconds that the slowest rank of each case took, summed; all cases must have passed."""
        lines = (self.folder / "reports" / "junit-bench-cpu.jsonl").read_text().splitlines()
        found = [line["outcome"] for line in map(json.loads, lines) if "outcome" in line]
        passed = [outcome for outcome in found if outcome["status"] == "passed"]
        assert len(passed) == len(self.cases), f"{len(passed)} of {len(self.cases)} passed"
        return sum(float(outcome["facts"]["seconds_in_ranks"]) for outcome in passed)

    def fresh_ranks(self) -> float:
        """All cases under MultiProcessTestCase: one start of the class, and the rest by the case."""
        if self.part is self.cases:
            return self.program("multiprocess", self.cases)
        start = self.program("multiprocess", [])
        some = self.program("multiprocess", self.part)
        return start + (some - start) * len(self.cases) / len(self.part)

    def torchrun(self) -> float:
        """All cases, each with a launcher of its own."""
        return sum(map(self._launch, self.part)) * len(self.cases) / len(self.part)

    def _launch(self, case: Case) -> float:
        env = environment(self.folder, **{VARIABLE: names([case])})
        launch = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={case.world_size}",
        ]
        return wall([*launch, str(HERE / "_under_torchrun.py")], env)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sample", type=int, default=4, help="cases measured where a case is slow")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forty-cases-") as name:
        run = Forty(Path(name), given.sample)
        mark = "" if run.part is run.cases else f" (extrapolated from {len(run.part)} cases)"
        plan: dict[str, Callable[[], float]] = {
            OURS: run.ours,
            CONTINUOUS: lambda: run.program("continuous", run.cases),
            f"MultiProcessTestCase{mark}": run.fresh_ranks,
            f"torchrun for each case{mark}": run.torchrun,
            FLOOR: lambda: run.program("floor", run.cases),
            "import torch and its FSDP, 1 process": lambda: bare_import(environment()),
        }
        for warm in (run.ours, plan[CONTINUOUS], plan[FLOOR]):
            warm()
        run.in_ranks.clear()
        publish(_table(run, rounds(plan, given.repeat), given.repeat), given.markdown)


def _table(run: Forty, found: dict[str, Series], repeat: int) -> Table:
    table = Table("forty_cases", ["way", "start to end, s", "times distparity's"])
    for way, series in found.items():
        table.add(way, series, series / found[OURS])
    work = Series(run.in_ranks)
    bare = list(found.values())[-1]
    bound = Series([a + b for a, b in zip(work.values, bare.values, strict=True)])
    table.notes = [
        (
            f"{len(run.cases)} cases on the CPU with gloo: {_content(run.cases)}. "
            f"Median (smallest - largest) of {repeat} alternated rounds."
        ),
        (
            f"The seconds of the slowest rank of each case add up to {work} s; distparity's whole time "
            f"is {found[OURS] / bound} times those and one import of torch."
        ),
        (
            "Every way uses the same code to train and to judge, except the floor, which only trains. "
            "MultiProcContinuousTest isolates nothing: a rank that dies ends its whole class."
        ),
    ]
    return table


def _content(cases: list[Case]) -> str:
    facets: dict[str, set[object]] = {
        "seeds": {case.scenario for case in cases},
        "strategies": {case.strategy for case in cases},
        "world sizes": {case.world_size for case in cases},
        "dtype": {case.dtype for case in cases},
    }
    return ", ".join(f"{len(values)} {name}" for name, values in facets.items())


if __name__ == "__main__":
    main()
