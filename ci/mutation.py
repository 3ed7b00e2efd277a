"""Mutate the verification and the records, and see which mutants the fast tests let live.

    nox -s mutation                                # all of it
    nox -s mutation -- verification/verdict        # the mutants of one module

mutmut makes the mutants. They are run here: the tests are collected once, and a fork of that process
runs a mutant's tests, the fastest ones first, until one fails. A mutant *hangs* if it uses far more CPU
time than its tests do without it, so that a busy machine makes no mutant hang. Survivors are named at the
end, but for those that look like a line of ``ci/survivors.txt``, which says why they may survive. Before
all that, a few mutations of a known meaning are put in, one at a time.
"""

from __future__ import annotations

import ast
import difflib
import gc
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

ROOT = Path(__file__).parents[1]
#: What is mutated, and the tests that are to notice.
FOLDERS = {
    "verification": ("verification",),
    "results": (
        *("test_journal.py", "test_junit.py", "test_fallback.py", "test_shares.py"),
        "test_pairs.py",
    ),
}
#: Tests of other things, those that go through thousands of cases, and those that run the suite.
SELECT = "not within_what_gitlab_takes and not search_without_end and not has_the_same_results"
SURVIVORS = ROOT / "ci" / "survivors.txt"
#: The least share of mutants, in percent, that must be killed.
LEAST = 90.0
OPTIONS = ["-q", "-s", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
# Hypothesis is imported already, and has no assertions of ours.
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
#: Mutations of a known meaning, all of ``verification``: what stands there, and what stands instead.
KNOWN = (
    ("the factor is 512", "constants.py", "FACTOR = 8.0", "FACTOR = 512.0"),
    (
        "replicas are not compared",
        "verdict.py",
        'if kind not in ("loss", "buffer"):',
        "if False:",
    ),
    (
        "NaN passes",
        "verdict.py",
        "ratios = torch.where(odd, math.inf, ratios)",
        "ratios[odd] = 0.0",
    ),
    (
        "one reference run counts",
        "tolerance.py",
        "for run in self.reference_runs\n",
        "for run in self.reference_runs[:1]\n",
    ),
    ("dtypes are not compared", "verdict.py", "found.dtype != native.dtype", "False"),
    (
        "errors do not stay",
        "tolerance.py",
        '_KEPT = ("parameter", "buffer")',
        "_KEPT = ()",
    ),
    (
        "additional tensors pass",
        "verdict.py",
        "sorted(own.keys() - tensors.keys())",
        "()",
    ),
    (
        "losses are averaged",
        "verdict.py",
        "if losses is not None and all(parts) and not self.splits_rows:",
        "if False:",
    ),
)
#: A mutant hangs after so many times the CPU time of its tests, and so many seconds more; and where
#: it uses none, after so many seconds.
TIMES, MORE, WAITS = 5.0, 2.0, 1800


@dataclass(frozen=True)
class Mutant:
    """``change`` is what it does to its function, as the lines of a diff."""

    module: str
    name: str
    change: str

    @property
    def function(self) -> str:
        return self.name.partition("__mutmut_")[0]

    @property
    def whole(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def where(self) -> str:
        """The function as people write it: ``verification.verdict._Bench._agree``."""
        inside = self.function.removeprefix("x").replace("ǁ", ".").lstrip(".")
        inside = inside if "ǁ" in self.function else inside.removeprefix("_")
        return f"{self.module.removeprefix('distparity.')}.{inside}"

    @property
    def key(self) -> str:
        return f"{self.where}: {self.change}"


def mutate(source: Path, wanted: list[str]) -> list[Mutant]:
    """Put the mutants of the wanted modules, or of all, into the copy ``source``; lists them."""
    found = []
    for path in sorted(path for one in FOLDERS for path in (source / one).glob("*.py")):
        name = path.relative_to(source).with_suffix("").as_posix()
        if wanted and name not in wanted:
            continue
        made = mutate_file_contents(str(path), path.read_text(encoding="utf-8"))
        path.write_text(made.code, encoding="utf-8")
        lines, bodies = made.code.splitlines(), {}
        for node in ast.walk(ast.parse(made.code)):
            if isinstance(node, ast.FunctionDef):
                bodies[node.name] = lines[node.lineno : node.end_lineno]
        for mutant in made.mutant_names:
            before = bodies[f"{mutant.partition('__mutmut_')[0]}__mutmut_orig"]
            change = " ".join(_changed(before, bodies[mutant]))
            found.append(Mutant(f"distparity.{name.replace('/', '.')}", mutant, change))
    return found


def _changed(before: list[str], after: list[str]) -> Iterator[str]:
    for line in difflib.unified_diff(before, after, lineterm="", n=0):
        if line[0] in "+-" and line[:3] not in ("+++", "---"):
            yield f"{line[0]} {line[1:].strip()}"


class Run:
    """In place of pytest's own loop over the tests: what each mutant's tests say of it."""

    def __init__(self, mutants: list[Mutant], folder: Path) -> None:
        self.mutants = mutants
        self.folder = folder
        #: "killed", "hangs", "survives" or "no test", by mutant.
        self.ends: dict[Mutant, str] = {}
        self.items: list[pytest.Item] = []
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = session.items
        if not self.items or session.testsfailed:
            raise pytest.UsageError("the tests cannot be collected")
        gc.collect()
        gc.freeze()
        tests_of, seconds = self._watch()
        # In the order in which mutants meet them, the tests pass.
        order = sorted(range(len(seconds)), key=seconds.__getitem__)
        pid, pipe = fork(self.folder, self._try, "", order, int(TIMES * sum(seconds) + MORE))
        os.close(pipe)
        if os.waitpid(pid, 0)[1]:
            raise pytest.UsageError("without a mutant, a test fails in another order")
        running: dict[int, tuple[Mutant, int]] = {}
        last: dict[str, int] = {}
        for mutant in self.mutants:
            tests = tests_of[f"{mutant.module}.{mutant.function}"]
            if not tests:
                self.ends[mutant] = "no test"
                continue
            # What killed the last mutant of a function is likely to kill the next.
            first = last.get(mutant.function, -1)
            tests = sorted(tests, key=seconds.__getitem__)
            tests = [test for test in tests if test == first] + [t for t in tests if t != first]
            limit = TIMES * sum(seconds[test] for test in tests) + MORE
            if len(running) == (os.cpu_count() or 1):
                self._end(running, last)
            pid, pipe = fork(self.folder, self._try, mutant.whole, tests, int(limit))
            running[pid] = mutant, pipe
        while running:
            self._end(running, last)
        return True

    def _end(self, running: dict[int, tuple[Mutant, int]], last: dict[str, int]) -> None:
        """Wait for a mutant, and note which test killed it."""
        pid, status = os.wait()
        mutant, pipe = running.pop(pid)
        with os.fdopen(pipe) as file:
            by = file.read()
        if by:
            last[mutant.function] = int(by)
        ends = {0: "survives", -signal.SIGXCPU: "hangs", -signal.SIGALRM: "hangs"}
        self.ends[mutant] = found = ends.get(os.waitstatus_to_exitcode(status), "killed")
        if found != "killed":
            print(f"\r{found}: {mutant.key}", flush=True)
        shutil.rmtree(self.folder / str(pid), ignore_errors=True)
        print(f"\r{len(self.ends)} of {len(self.mutants)}", end="", flush=True)

    def _watch(self) -> tuple[dict[str, list[int]], list[float]]:
        """Which tests call each function, and how much CPU time each test uses; without a mutant."""
        pid, pipe = fork(self.folder, self._all)
        with os.fdopen(pipe) as file:
            text = file.read()
        if os.waitpid(pid, 0)[1]:
            raise pytest.UsageError(f"without a mutant, a test fails: {text}")
        calls, seconds = json.loads(text)
        tests_of = defaultdict(list)
        for test, functions in enumerate(calls):
            for function in functions:
                tests_of[function].append(test)
        print(f"{len(self.items)} tests, {sum(seconds):.1f} s of CPU time", flush=True)
        return tests_of, seconds

    def _all(self) -> tuple[int, str]:
        set_mutant_under_test("stats")
        calls, seconds = [], []
        hits = state()._stats  # noqa: SLF001  it is nowhere else
        for test, item in enumerate(self.items):
            hits.clear()
            began = time.process_time()
            if self._fails(test, test + 1):
                return 1, item.nodeid
            seconds.append(time.process_time() - began)
            calls.append(sorted(hits))
        return 0, json.dumps([calls, seconds])

    def _try(self, mutant: str, tests: list[int], limit: int) -> tuple[int, str]:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        signal.alarm(WAITS)
        set_mutant_under_test(mutant)
        for test, following in zip(tests, [*tests[1:], len(self.items)], strict=True):
            if self._fails(test, following):
                return 1, str(test)
        return 0, ""

    def _fails(self, test: int, following: int) -> bool:
        item, after = self.items[test], [*self.items, None][following]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        return self.failed


def fork(folder: Path, act: Callable[..., tuple[int, str]], *words: Any) -> tuple[int, int]:
    """Call ``act`` in a silent fork: the fork's id, and a pipe with the text that it returns."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    code = 1
    try:
        # Where the tests' own folders go.
        own = folder / str(os.getpid())
        own.mkdir()
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(own)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        code, text = act(*words)
        with os.fdopen(write, "w") as file:
            file.write(text)
    finally:
        os._exit(code)


def copy(folder: Path) -> Path:
    """A copy of ``src``, which this process and those that it starts import from then on."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)
    return source / "distparity"


# -- mutations of a known meaning ------------------------------------------------------------------


class First:
    """Notes the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.rpartition("::")[2]


def known(folder: Path) -> int:
    """Put in each of the mutations of a known meaning alone; how many survive."""
    survive = 0
    for what, module, there, instead in KNOWN:
        text = (ROOT / "src" / "distparity" / "verification" / module).read_text(encoding="utf-8")
        if text.count(there) != 1:
            raise SystemExit(f"{what}: {module} has {there!r} {text.count(there)} times, not once")
        pid, pipe = fork(folder, _known, folder / module, module, text.replace(there, instead))
        with os.fdopen(pipe) as file:
            by = file.read()
        os.waitpid(pid, 0)
        shutil.rmtree(folder / module)
        survive += not by
        print(f"{what:40}{f'killed by {by}' if by else 'survives'}", flush=True)
    return survive


def _known(folder: Path, module: str, text: str) -> tuple[int, str]:
    (copy(folder) / "verification" / module).write_text(text, encoding="utf-8")
    first = First()
    pytest.main([*OPTIONS, "-x", str(ROOT / "tests" / "verification")], plugins=[first])
    return 0, first.name


def listed() -> list[str]:
    """What the mutants that may survive look like: regular expressions, each found in a key."""
    lines = SURVIVORS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def main(words: list[str]) -> int:
    began = time.monotonic()
    # Every mutant meets the same examples, and what they find is not kept.
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("mutation", database=None, derandomize=True, phases=phases)
    settings.load_profile("mutation")
    # For all forks, once.
    importlib.import_module("torch")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        survive = 0 if words else known(folder)
        run = Run(mutate(copy(folder), words), folder)
        mutated = {mutant.module.split(".")[1] for mutant in run.mutants}
        tests = [str(ROOT / "tests" / test) for one in sorted(mutated) for test in FOLDERS[one]]
        code = pytest.main([*OPTIONS, "-k", SELECT, *tests], plugins=[run])
    if len(run.ends) < len(run.mutants):
        return int(code) or 1
    return report(run.ends, time.monotonic() - began, whole=not words) or int(survive > 0)


def report(ends: dict[Mutant, str], seconds: float, *, whole: bool) -> int:
    """Print how many mutants of each module ended how; returns the exit code."""
    print(f"\n\n{'module':40}{'killed':>8}{'hangs':>8}{'survives':>10}{'no test':>9}{'share':>8}")
    modules = sorted({mutant.module for mutant in ends})
    for module in [*modules, ""]:
        count = Counter(end for mutant, end in ends.items() if module in ("", mutant.module))
        share = 100 * (count["killed"] + count["hangs"]) / count.total()
        print(
            f"{module or 'all':40}{count['killed']:8}{count['hangs']:8}{count['survives']:10}"
            f"{count['no test']:9}{share:7.1f}%"
        )
    print(f"{seconds:.0f} s")
    likes = listed()
    alive = {mutant.key: end for mutant, end in ends.items() if end in ("survives", "no test")}
    new = {key for key in alive if not any(re.search(like, key) for like in likes)}
    for key in sorted(new):
        print(f"not in {SURVIVORS.name}: {key} ({alive[key]})")
    gone = {like for like in likes if not any(re.search(like, key) for key in alive)}
    for like in sorted(gone) if whole else ():
        print(f"in {SURVIVORS.name}, and nothing like it survives: {like}")
    return int(share < LEAST)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
