"""Run one case with one torch, in another interpreter, and read the result from its XML."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

__all__ = ["FAILS", "PASSES", "UNSUPPORTED", "Observation", "Question", "observe"]

PASSES = "passes"
FAILS = "fails"
UNSUPPORTED = "is not supported"

#: What each status says about a release; a status that is not listed says nothing.
_KINDS = {
    "passed": PASSES,
    "unexpectedly fixed": PASSES,
    "failed": FAILS,
    "crash": FAILS,
    "timeout": FAILS,
    "expected failure": FAILS,
    "not supported": UNSUPPORTED,
}
CELL = "bisect"
#: Seconds beyond the time limit of the case, for torch's import, a world's start, the oracle and the
#: verdict.
_BEYOND = 600.0


@dataclass(frozen=True)
class Question:
    """The case to run, and how."""

    case: str
    device: str = "cpu"
    limit: float = 60.0
    include: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    #: Where the files of torch's own tests are, if the case is one of them: see ``distparity upstream``.
    upstream: str | None = None

    @property
    def words(self) -> list[str]:
        """The command of distparity, and its options."""
        if self.upstream is not None:
            words = ["upstream", "--upstream", self.upstream, "--case", self.case]
            return [*words, "--device", self.device, f"--test-timeout={self.limit:g}"]
        return ["run", "-p", "no:cacheprovider", *self._of_run]

    @property
    def _of_run(self) -> list[str]:
        size = re.search(r"-ws(\d+)-", self.case)
        words = ["--device", self.device, "--case", self.case, f"--case-timeout={self.limit:g}"]
        # Without known defects: bisect looks for exactly the failures that they expect.
        words.append("--no-known-defects")
        words += ["--world-size", size[1]] if size else []
        for name in self.include:
            words += ["--include", name]
        for name in self.plugins:
            words += ["--device-plugin", name]
        return words


@dataclass(frozen=True)
class Observation:
    """The result with one release: ``status`` is the outcome's, or empty if the case did not run."""

    status: str
    message: str = ""
    ratio: float | None = None
    #: ``torch.__version__`` in that run.
    torch: str = ""
    diagnosis: str = ""

    @property
    def kind(self) -> str | None:
        """One of :data:`PASSES`, :data:`FAILS`, :data:`UNSUPPORTED`; None if it says nothing."""
        return _KINDS.get(self.status)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": None if self.ratio is None else f"{self.ratio:.6g}"}

    def __str__(self) -> str:
        """One line: the status, the ratio, and the diagnosis or message."""
        ratio = "" if self.ratio is None else f", ratio {self.ratio:.3g}"
        about = self.diagnosis or self.message
        return f"{self.status or 'did not run'}{ratio}{': ' * bool(about)}{about}"


def observe(python: Path, suite: Path, question: Question, runs: int = 1) -> Observation:
    """Run the case ``runs`` times with that interpreter and the distparity in the folder ``suite``.

    If the runs disagree on the kind, the release is *flapping*, and says nothing.
    """
    seen = [_once(python, suite, question) for _ in range(runs)]
    kinds = {one.kind for one in seen}
    if len(kinds) > 1:
        told = ", ".join(one.status or "no run" for one in seen)
        return replace(seen[0], status="flapping", message=f"it ran {runs} times: {told}")
    # The worst run: a release is judged by its largest ratio.
    return max(seen, key=lambda one: one.ratio or 0.0)


def _once(python: Path, suite: Path, question: Question) -> Observation:
    with tempfile.TemporaryDirectory(prefix="distparity-bisect-run-") as folder:
        command = [str(python), "-m", "distparity", *question.words]
        command += ["--cell", CELL, "--report-dir", "reports"]
        output = _run(command, folder, suite, _BEYOND + 6 * question.limit)
        # If torch could not be imported there is an XML too, which says why.
        for path in Path(folder, "reports").glob(f"junit-{CELL}-*.xml"):
            return read(path)
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    return Observation("", f"no XML was written: {last.strip()}")


def _run(command: Sequence[str], folder: str, suite: Path, limit: float) -> str:
    path = os.pathsep.join(filter(None, [str(suite), os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        return f"the run did not end within {limit:g} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def read(path: Path) -> Observation:
    """Read the one case of a cell's XML."""
    suite = ET.parse(path).getroot().find("testsuite")  # noqa: S314  our own run just wrote it
    assert suite is not None
    case = suite.find("testcase")
    if case is None:
        return Observation("", "the run does not have this case")
    facts, about = _properties(case), _properties(suite)
    result = next(
        (case.find(tag) for tag in ("failure", "error", "skipped") if _has(case, tag)), None
    )
    message = "" if result is None else result.get("message", "")
    return Observation(
        facts.get("status", ""),
        message.removeprefix(f"{facts.get('status')}: "),
        float(facts["ratio"]) if "ratio" in facts else None,
        about.get("distparity.torch", ""),
        facts.get("diagnosis", ""),
    )


def _has(element: ET.Element, tag: str) -> bool:
    return element.find(tag) is not None


def _properties(element: ET.Element) -> dict[str, str]:
    return {
        one.get("name", ""): one.get("value", "") for one in element.findall("properties/property")
    }
