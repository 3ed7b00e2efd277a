"""Faults injected for real into a rank: what is reported, how soon, and what is left.

``python benchmarks/faults.py --markdown docs/faults.md`` runs each fault of ``tests/test_faults.py``
in the middle of a suite, at world sizes 2 and 4, and a handful of them under the two harnesses that
come with PyTorch, and writes the table.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
sys.path[:0] = [str(HERE.parent / "src"), str(TESTS)]

from test_faults import FAULTS, LEFT, LIMIT, SIZES, Suite, cases, listed, remove_groups  # noqa: E402  see above

from distparity.outcome import Outcome  # noqa: E402  likewise

UPSTREAM = {"Spawned": "MultiProcessTestCase", "Continuous": "MultiProcContinuousTest"}
#: The faults that the upstream harnesses are given.
SHARED = ("raise-one", "sigkill", "sigstop", "skip-collective")
#: How many seconds after the first test an upstream harness may take; it has limits of minutes.
PATIENCE = 130
#: And how many to come that far.
START = 400
RESULT = re.compile(r"::(test_\d_\w+) (PASSED|FAILED|SKIPPED|ERROR)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE")
    parser.add_argument("--ours", action="store_true", help="leave PyTorch's harnesses out")
    given = parser.parse_args()
    lines = [*_preamble(ours=given.ours), *_ours()]
    if not given.ours:
        lines += _theirs()
    text = "\n".join(lines) + "\n"
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")


def _preamble(*, ours: bool) -> list[str]:
    options = "--ours " if ours else ""
    code = "import torch; print(torch.__version__)"
    torch = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [
        "# Faults",
        "",
        f"Made by `python benchmarks/faults.py {options}--markdown docs/faults.md`; do not edit.",
        "",
        (
            f"Measured with torch {torch.stdout.strip()}, Python {platform.python_version()}, "
            f"{os.cpu_count()} cores, the limit of a case at {LIMIT} s."
        ),
        "",
    ]


# -- ours ----------------------------------------------------------------------------------------


def _ours() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        quiet = Suite(Path(folder) / "quiet", listed(cases("ddp", "fsdp1", "fsdp2"))).run()
        faults = [f"fault-{name}" for name in FAULTS]
        leaves = [f"fault-leaves-{name}" for name in LEFT]
        checks = [f"{name}-check" for name in leaves]
        arguments = listed(cases("ddp", "fsdp1", "fsdp2", *faults, *leaves, *checks))
        arguments += ["--case-timeout", str(LIMIT), "--worlds", "6"]
        suite = Suite(Path(folder) / "faults", arguments).run()
        found = suite.journal()
        same = sum(_alike(found[case], outcome) for case, outcome in quiet.journal().items())
        total = len(quiet.journal())
        left = suite.leftovers()
        remove_groups()
    return [
        "## What distparity reports",
        "",
        (
            "One run of the suite, with every fault in it. *Known* is the time from the task's beginning, "
            "start-up of the training included, to the verdict. Afterwards "
            f"{same} of {total} other cases had the same result as in a run without faults, and "
            f"{len(left) or 'nothing'} was left of processes, temporary files and shared memory."
        ),
        "",
        "| fault | ranks | status | known | message |",
        "|---|---|---|---|---|",
        *(_row(found, name, size) for name in FAULTS for size in SIZES),
        "",
        (
            "What a case leaves behind is found after it, and its world takes no further case; the random "
            "generators are put back before every case. The case that follows looks for it."
        ),
        "",
        "| left behind | ranks | the case | found | the case that follows |",
        "|---|---|---|---|---|",
        *(_left(found, name, size) for name in LEFT for size in SIZES),
        "",
    ]


def _alike(one: Outcome, other: Outcome) -> bool:
    return (one.status, one.message) == (other.status, other.message)


def _row(found: dict[str, Outcome], name: str, size: int) -> str:
    outcome = found[f"multiple_forward/fault-{name}-ws{size}-float32"]
    known = outcome.facts.get("known_after", outcome.facts.get("seconds_in_ranks", 0.0))
    return (
        f"| {name} | {size} | {outcome.status.value} | {known:.1f} s | {_cell(outcome.message)} |"
    )


def _left(found: dict[str, Outcome], name: str, size: int) -> str:
    case = found[f"multiple_forward/fault-leaves-{name}-ws{size}-float32"]
    check = found[f"multiple_forward/fault-leaves-{name}-check-ws{size}-float32"]
    said = case.facts.get("left_behind", "put back").partition(";")[0]
    return f"| {name} | {size} | {case.status.value} | {_cell(said)} | {check.status.value} |"


def _cell(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text).replace("|", "\\|")
    return plain if len(plain) < 400 else f"{plain[:400]}..."


# -- theirs --------------------------------------------------------------------------------------


@dataclass
class Upstream:
    """Three tests under one of PyTorch's harnesses, the middle one with a fault."""

    results: dict[str, str]
    known: float | None
    message: str
    left: int

    def row(self) -> str:
        known = "not" if self.known is None else f"{self.known:.1f} s"
        if not self.results:
            # Nothing was measured: the machine was too slow for the harness, not the fault for it.
            known = f"not measured: the first test took more than {START} s"
        fates = [self.results.get(n, "no result").lower() for n in ("test_2_fault", "test_3_after")]
        return " | ".join([fates[0], known, fates[1], str(self.left), _cell(self.message)])


def _theirs() -> list[str]:
    pairs = [(fault, harness) for fault in SHARED for harness in UPSTREAM]
    # Nearly all of the time is waiting for limits.
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: _upstream(pair[1], pair[0]), pairs))
    rows = [
        f"| {fault} | {UPSTREAM[harness]} | {result.row()} |"
        for (fault, harness), result in zip(pairs, found, strict=True)
    ]
    return [
        "## The same under PyTorch's own harnesses",
        "",
        (
            "World size 2, three tests, the fault in the second. *Known* is the time from the first "
            f"test's result to the second's; *not*: not within {PATIENCE} s, when pytest was killed. "
            "*Left* counts processes that were still there 2 s after pytest had ended or been killed."
        ),
        "",
        "| fault | harness | result | known | the next test | left | message |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]


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
    times, text = _listen(process)
    time.sleep(2)
    left = _marked(mark)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    results = {name: result for name, (result, _) in times.items()}
    known = None
    if "test_2_fault" in times and "test_1_before" in times:
        known = times["test_2_fault"][1] - times["test_1_before"][1]
    errors = re.findall(r"^E +(.*\S)", text, re.MULTILINE)
    return Upstream(results, known, errors[0] if errors else "", len(left))


def _listen(process: subprocess.Popen[bytes]) -> tuple[dict[str, tuple[str, float]], str]:
    """Each test's result and when it was printed, and the end of all that was."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + START
    times: dict[str, tuple[str, float]] = {}
    text = ""
    while time.monotonic() < deadline:
        try:
            data = os.read(process.stdout.fileno(), 1 << 20)
        except BlockingIOError:
            time.sleep(0.05)
            continue
        if not data:
            break
        text = (text + data.decode("utf-8", "replace"))[-(1 << 20) :]
        for name, result in RESULT.findall(text):
            if not times:
                deadline = time.monotonic() + PATIENCE
            times.setdefault(name, (result, time.monotonic()))
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()
    return times, text


def _marked(mark: str) -> list[int]:
    suite = Suite(Path(), mark=mark)
    return suite.processes()


if __name__ == "__main__":
    main()
