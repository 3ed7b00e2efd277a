"""Faults injected for real into a rank, or into the run: what is reported, how soon, what is left.

``python benchmarks/faults.py --markdown docs/faults.md`` does each fault of ``tests/test_faults*.py``
at world sizes 2 and 4, in the middle of a suite of other cases and in a run of its own; then the
same faults under the two harnesses that come with PyTorch. ``--part`` does one of the tables.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from _measure import Table, publish

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
sys.path[:0] = [str(HERE.parent / "src"), str(TESTS)]

import faulty_runs as runs  # noqa: E402  see above
import test_astray as astray  # noqa: E402
import test_faults as faults  # noqa: E402
import test_faults_around as around  # noqa: E402

from distparity.core.outcome import Outcome, Status  # noqa: E402  likewise
from distparity.torch_support.version import installed  # noqa: E402  likewise

UPSTREAM = {"Spawned": "MultiProcessTestCase", "Continuous": "MultiProcContinuousTest"}
#: What the upstream harnesses are given, at world size 2.
SHARED = (
    "raise-one",
    "exit-3",
    "sys-exit-0",
    "sigkill",
    "sigsegv",
    "sigstop",
    "endless-loop",
    "native-with-gil",
    "skip-collective",
    "other-collective",
    "other-shape",
    "loud",
)
#: How many seconds after the first test an upstream harness may take; it has limits of minutes.
PATIENCE = 75
#: And how many to come that far.
START = 300
RESULT = re.compile(r"::(test_\d_\w+) (PASSED|FAILED|SKIPPED|ERROR)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables in FILE")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this table")
    given = parser.parse_args()
    for part in given.part or PARTS:
        publish(PARTS[part](), given.markdown)


def _case(name: str, size: int) -> str:
    return runs.cases(f"fault-{name}", sizes=[size])[0]


def _cell(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text).replace("|", "\\|")
    return plain if len(plain) < 300 else f"{plain[:300]}..."


# -- faults in a rank ----------------------------------------------------------------------------


@dataclass
class Ran:
    """A suite of other cases with faults in their middle, in a folder that is gone by now."""

    found: dict[str, Outcome]
    #: When each result was written, and when each fault happened first, by ``time.time``.
    written: dict[str, float]
    happened: dict[str, float]
    alike: str
    left: list[str]


@cache
def _undisturbed() -> dict[str, Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        names = runs.cases(*runs.OTHERS)
        return runs.Suite(Path(folder) / "run", runs.listed(names)).run().journal()


def _among_others(*names: str) -> Ran:
    """Run cases at all world sizes beside and before others, and see what is left of them."""
    quiet = _undisturbed()
    with tempfile.TemporaryDirectory() as place:
        times = Path(place) / "times"
        times.mkdir()
        environment = {"INJECTED_TIMES": str(times), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
        wrong = [_case(name, size) for name in names for size in runs.SIZES]
        words = runs.listed([*quiet, *wrong])
        words += ["--case-timeout", str(runs.LIMIT), "--worlds", "8"]
        suite = runs.Suite(Path(place) / "run", words, environment).run()
        faults.remove_groups()
        found = suite.journal()
        assert suite.xml() == {case: outcome.status.value for case, outcome in found.items()}
        alike = sum(_alike(found[case], outcome) for case, outcome in quiet.items())
        return Ran(
            found, _written(suite), _happened(times), f"{alike} of {len(quiet)}", suite.leftovers()
        )


def _alike(one: Outcome, other: Outcome) -> bool:
    return (one.status, one.message) == (other.status, other.message)


def _written(suite: runs.Suite) -> dict[str, float]:
    path = suite.folder / "reports" / "junit-x-cpu.jsonl"
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {line["case"]: line["at"] for line in lines if "case" in line}


def _happened(folder: Path) -> dict[str, float]:
    """When a fault's first rank came to it, by its name without the rank."""
    found: dict[str, float] = {}
    for path in folder.iterdir():
        name, when = path.name.rpartition("-")[0], float(path.read_text())
        found[name] = min(when, found.get(name, when))
    return found


def _faults() -> Table:
    # The older releases have a table of their own: less of them is torch's to tell.
    name = "faults" if installed() >= (2, 8) else "faults-before-2.8"
    table = Table(name, ["fault", "ranks", "status", "known", "other cases", "left", "message"])
    for name in faults.FAULTS:
        ran = _among_others(name)
        for size in runs.SIZES:
            outcome = ran.found[_case(name, size)]
            known = _known(ran, name, size)
            left = ", ".join(ran.left) or "nothing"
            table.add(
                name, size, outcome.status.value, known, ran.alike, left, _cell(outcome.message)
            )
            print(table.rows[-1], flush=True)
    table.notes = [
        "each fault is a separate run, at both world sizes, with other cases beside it and after it",
        (
            "*known*: when the result was written, in seconds after the fault (by the clock of the rank "
            f"that had it) or beyond the case's limit of {runs.LIMIT} s"
        ),
        "*other cases*: how many had the same result as in a run without the fault",
        "*left*: processes, sockets, files and shared memory that still existed after the run",
    ]
    return table


def _known(ran: Ran, name: str, size: int) -> str:
    case = _case(name, size)
    outcome = ran.found[case]
    if outcome.status is Status.TIMEOUT:
        return f"limit + {outcome.facts['known_after'] - runs.LIMIT:.1f} s"
    if not outcome.status.bad:
        return "-"
    return f"{ran.written[case] - ran.happened[f'fault-{name}-ws{size}']:.2f} s"


# -- ranks out of step ---------------------------------------------------------------------------


def _astray() -> Table:
    """What is told of a rank that waits for nobody's message, by who keeps the record."""
    table = Table(
        "astray", ["fault", "ranks", "with torch's flight recorder", "with our collective log"]
    )
    told = {record: _stray_messages(size) for record, size in astray.RECORDS.items()}
    for where in astray.ASTRAY:
        for size in runs.SIZES:
            (case,) = runs.cases(f"astray-{where}", sizes=[size])
            table.add(where, size, *(_cell(told[record][case]) for record in ("torch", "ours")))
    table.notes = [
        "the last rank waits in `recv` for a message that no rank sends; the other ranks wait for it",
        (
            "*with our collective log*: `TORCH_FR_BUFFER_SIZE=0` switches the flight recorder off; before "
            "torch 2.8 it does not know gloo"
        ),
    ]
    return table


def _stray_messages(size: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as place:
        words = runs.listed(runs.cases(*(f"astray-{where}" for where in astray.ASTRAY)))
        words += ["--include", "astray", "--case-timeout", str(runs.LIMIT), "--worlds", "16"]
        suite = runs.Suite(Path(place) / "run", words, {"TORCH_FR_BUFFER_SIZE": size}).run()
        found = suite.journal()
    return {case: outcome.message.partition(" s: ")[2] for case, outcome in found.items()}


# -- what a case leaves behind -------------------------------------------------------------------


def _leftovers() -> Table:
    table = Table(
        "left-behind",
        [
            "left behind",
            "ranks",
            "the case",
            "found",
            "the next case",
            "other cases",
            "left",
        ],
    )
    for name in faults.LEFT:
        leaver, check = f"leaves-{name}", f"leaves-{name}-check"
        ran = _among_others(leaver, check)
        for size in runs.SIZES:
            case, after = ran.found[_case(leaver, size)], ran.found[_case(check, size)]
            said = case.facts.get("left_behind", "reset").partition(";")[0]
            left = ", ".join(ran.left) or "nothing"
            table.add(
                name, size, case.status.value, _cell(said), after.status.value, ran.alike, left
            )
            print(table.rows[-1], flush=True)
    table.notes = [
        (
            "*found*: what the leak check found changed after the case, whose world then takes no further "
            "case; the random generators are reset before every case"
        ),
        "*the next case* fails if it finds any of it",
    ]
    return table


# -- the run itself ------------------------------------------------------------------------------


def _run() -> Table:
    table = Table("run", ["what happens", "ranks", "exit code", "results", "known", "left"])
    for size in runs.SIZES:
        for what, happen in RUNS.items():
            with tempfile.TemporaryDirectory() as folder:
                table.add(what, size, *happen(Path(folder) / "run", size))
            print(table.rows[-1], flush=True)
    table.notes = [
        (
            "*results*: as the XML has them. It lists every declared case; a case without a result is "
            "*missing*"
        ),
        (
            "*known*: from the signal until the XML was complete and every process had ended, or from "
            "the death to the case's result"
        ),
    ]
    return table


def _kill(folder: Path, size: int, number: signal.Signals) -> list[str]:
    suite = runs.Suite(folder, runs.listed(runs.cases(*around.KILLED, sizes=[size])))
    process = suite.start()
    around.wait_for(suite.has_result)
    os.kill(process.pid, number)
    began = time.monotonic()
    process.communicate(timeout=60)
    suite.await_end()
    known = time.monotonic() - began
    return [str(process.returncode), _results(suite), f"{known:.1f} s", _left(suite)]


def _fill(folder: Path, size: int) -> list[str]:
    suite = runs.Suite(
        folder, runs.listed(runs.cases("ddp", "fsdp1", "fault-raise-one", sizes=[size]))
    )
    if not around.fill_disk(suite):
        return ["-", "no small disk can be mounted here", "-", "-"]
    around.fetch_saved(suite)
    return [
        str(suite.code),
        f"{_results(suite)}, in another folder, which the run names",
        "-",
        _left(suite),
    ]


def _orphan(folder: Path, size: int, fault: str) -> list[str]:
    case = _case(fault, size)
    times = folder.parent / "times"
    times.mkdir()
    names = [*runs.cases("ddp", "fsdp1", sizes=[size]), case]
    words = [*runs.listed(names), "--worlds", str(4 * size)]
    suite = runs.Suite(folder, words, {"INJECTED_TIMES": str(times)}).run()
    # It is done twice: together with others, and then alone, which is when it is to blame.
    known = _written(suite)[case] - _happened(times)[f"fault-{fault}-ws{size}"]
    return [str(suite.code), _results(suite), f"{known:.1f} s", _left(suite)]


def _results(suite: runs.Suite) -> str:
    statuses = list(suite.xml().values())
    return ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))


def _left(suite: runs.Suite) -> str:
    return ", ".join(suite.leftovers()) or "nothing"


RUNS: dict[str, Callable[[Path, int], list[str]]] = {
    **{f"pytest is sent {number.name}": partial(_kill, number=number) for number in around.SIGNALS},
    "the disk under the report folder is full": _fill,
    "a rank kills the fork server": partial(_orphan, fault="kills-parent"),
    "a rank kills it, and leaves others behind": partial(_orphan, fault="kills-parent-leaving"),
    "a rank removes the run's folder": partial(_orphan, fault="removes-place"),
    "a rank stops the fork server": partial(_orphan, fault="stops-parent"),
}


# -- PyTorch's own harnesses ---------------------------------------------------------------------


@dataclass
class Upstream:
    """Three tests under one of PyTorch's harnesses, the middle one with a fault."""

    results: dict[str, str]
    known: float | None
    ended: bool
    message: str
    left: int

    def row(self) -> list[object]:
        fates = [self.results.get(n, "no result").lower() for n in ("test_2_fault", "test_3_after")]
        if not self.results:
            # Nothing was measured: the machine was too slow for the harness, not the fault for it.
            known = f"the first test took more than {START} s"
        elif self.known is not None:
            known = f"{self.known:.1f} s"
        else:
            known = "pytest ended without it" if self.ended else f"not within {PATIENCE} s"
        return [fates[0], known, fates[1], self.left, _cell(self.message)]


def _theirs() -> Table:
    pairs = [(fault, harness) for fault in SHARED for harness in UPSTREAM]
    # Nearly all of the time is waiting for limits.
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: _upstream(pair[1], pair[0]), pairs))
    headings = ["fault", "harness", "the test", "known", "the next test", "left", "message"]
    table = Table("upstream", headings)
    for (fault, harness), result in zip(pairs, found, strict=True):
        table.add(fault, UPSTREAM[harness], *result.row())
    table.notes = [
        ("world size 2, three tests, the fault in the second; each combination is a separate run"),
        (
            f"*known*: from the first test's result to the second's; pytest is killed {PATIENCE} s after "
            "the first test's"
        ),
        "*left*: processes that still existed 2 s after pytest had ended or been killed",
    ]
    return table


def _upstream(harness: str, fault: str) -> Upstream:
    mark = secrets.token_hex(8)
    words = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--tb=short", "-rN"]
    process = subprocess.Popen(
        [*words, "-o", "addopts=", "-o", "python_files=*.py", str(HERE / "_faults_upstream.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tempfile.gettempdir(),
        start_new_session=True,
        env={
            **os.environ,
            "HARNESS": harness,
            "FAULT": f"fault-{fault}",
            "SUITE_MARK": mark,
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(
                [str(HERE), str(TESTS / "included"), str(HERE.parent / "src")]
            ),
        },
    )
    times, text, ended = _listen(process)
    time.sleep(2)
    left = runs.Suite(Path(), mark=mark).processes()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    results = {name: result for name, (result, _) in times.items()}
    known = None
    if "test_2_fault" in times and "test_1_before" in times:
        known = times["test_2_fault"][1] - times["test_1_before"][1]
    errors = re.findall(r"^E +(.*\S)", text, re.MULTILINE)
    found = Upstream(results, known, ended, errors[0] if errors else "", len(left))
    print(fault, harness, found, flush=True)
    return found


def _listen(process: subprocess.Popen[bytes]) -> tuple[dict[str, tuple[str, float]], str, bool]:
    """Each test's result and when it was printed, the end of the output, and whether it ended."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + START
    times: dict[str, tuple[str, float]] = {}
    text = ""
    ended = False
    while not ended and time.monotonic() < deadline:
        try:
            data = os.read(process.stdout.fileno(), 1 << 20)
        except BlockingIOError:
            time.sleep(0.05)
            continue
        ended = not data
        text = (text + data.decode("utf-8", "replace"))[-(1 << 20) :]
        for name, result in RESULT.findall(text):
            if not times:
                deadline = time.monotonic() + PATIENCE
            times.setdefault(name, (result, time.monotonic()))
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()
    return times, text, ended


PARTS = {"faults": _faults, "astray": _astray, "left": _leftovers, "run": _run, "upstream": _theirs}


if __name__ == "__main__":
    main()
