"""Run test files of torch's own repository, unmodified, each test in a process of its own.

A test that crashes or hangs costs itself alone. The results are a cell of the matrix: the same side file
and XML as those of a run. Nothing of these files is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distparity.core.bad_request import BadRequest
from distparity.core.outcome import Outcome, Status
from distparity.core.processes import describe_exit
from distparity.results import junit_writer
from distparity.results.journal import Journal, Taken, paths

__all__ = ["Upstream", "lines", "run"]

#: Seconds to import a file and to list its tests.
COLLECTING = 600.0
#: The most characters of a test's output that are kept.
MOST = 20_000
_NODE = re.compile(r"^(\S+\.py)::(\S.*)$")
_TORCH = "import json, torch; print(json.dumps([torch.__version__, torch.version.git_version]))"


@dataclass
class Upstream:
    """What the user asked for. ``source`` is a checkout, its ``test/distributed``, or an archive."""

    source: Path
    #: Relative to ``test/distributed``.
    files: list[str]
    device: str = "cpu"
    limit: float = 300.0
    report_dir: Path = Path("reports")
    cell: str | None = None
    #: JSON: by release and file, how many tests there are.
    counts: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)


def run(asked: Upstream) -> tuple[dict[str, Outcome], list[str], Path]:
    """Run every test of the files; returns the outcomes by id, the complaints, and the XML.

    A complaint makes the run red although no test failed. Raises :class:`BadRequest`.
    """
    with tempfile.TemporaryDirectory(prefix="distparity-upstream-") as scratch:
        folder = _folder(asked.source, Path(scratch))
        absent = [file for file in asked.files if not (folder / file).is_file()]
        if absent:
            raise BadRequest(f"{folder} has no {absent[0]}")
        runner = _Runner(asked, folder, Path(scratch))
        torch, git = runner.torch()
        outcomes: dict[str, Outcome] = {}
        tests: list[str] = []
        for file in asked.files:
            found = runner.collect(file)
            if isinstance(found, Outcome):
                outcomes[_id(file, "collection")] = found
            else:
                tests += found
        complaints = _fewer(asked, torch, Counter(test.partition("::")[0] for test in tests))
        journal = _journal(asked, torch, git, [*outcomes, *(_id(*_parts(t)) for t in tests)])
        for case, outcome in outcomes.items():
            journal.add(case, outcome)
        for test in tests:
            case = _id(*_parts(test))
            outcomes[case] = runner.run(test)
            journal.add(case, outcomes[case])
        journal.end("finished")
    if outcomes and all(outcome.status.skipped for outcome in outcomes.values()):
        complaints.append("every test was skipped")
    if not outcomes:
        complaints.append("there is no test")
    return outcomes, complaints, junit_writer.write_from_journal(journal.path)


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the files of an archive, and nothing else that it has; raises ``TarError`` for unsafe names.

    ``filter="data"`` does the same from Python 3.10.12, 3.11.4 and 3.12 on.
    """
    folder.mkdir(parents=True)
    for member in archive:
        place = Path(member.name)
        if place.is_absolute() or ".." in place.parts:
            raise tarfile.TarError(f"it has a file outside of it: {member.name}")
        if member.isdir():
            (folder / place).mkdir(parents=True, exist_ok=True)
        elif (file := archive.extractfile(member) if member.isfile() else None) is not None:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            with file, (folder / place).open("wb") as copy:
                shutil.copyfileobj(file, copy)


def _folder(source: Path, scratch: Path) -> Path:
    """The folder ``test/distributed`` of a checkout or of an archive."""
    if source.is_file():
        try:
            with tarfile.open(source) as archive:
                _extract(archive, scratch / "source")
        except (tarfile.TarError, OSError) as error:
            raise BadRequest(f"{source}: {error}") from None
        inside = list((scratch / "source").iterdir())
        source = inside[0] if len(inside) == 1 else scratch / "source"
    below = source / "test" / "distributed"
    if not source.is_dir():
        raise BadRequest(f"{source}: there is no such folder or archive")
    return below if below.is_dir() else source


def _parts(test: str) -> tuple[str, str]:
    found = _NODE.match(test)
    assert found is not None
    return found[1], found[2]


def _id(file: str, name: str) -> str:
    """``upstream.fsdp.test_x/Class.test``: the id of a test, the same in every cell."""
    scenario = file.removesuffix(".py").replace("/", ".")
    return f"upstream.{scenario}/{name.replace('::', '.')}"


class _Runner:
    """Starts pytest for one file or one test."""

    def __init__(self, asked: Upstream, folder: Path, scratch: Path) -> None:
        self.asked, self.folder, self.scratch = asked, folder, scratch
        # Neither the configuration of torch's repository nor that of the current folder.
        (scratch / "pytest.ini").write_text("[pytest]\n")
        own = {} if asked.device == "cpu" else {"PYTORCH_TESTING_DEVICE_ONLY_FOR": asked.device}
        if asked.device == "cpu":
            own = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
        # Test files import what lies beside them.
        own["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
        self.variables = {**os.environ, "PYTHONPATH": path, **own, **asked.environment}

    def torch(self) -> tuple[str, str]:
        code, output, _ = self._start([sys.executable, "-c", _TORCH], COLLECTING)
        if code != 0:
            raise BadRequest("torch cannot be imported", output)
        version, git = json.loads(output.splitlines()[-1])
        return version, git or "unknown"

    def _pytest(self, *words: str) -> list[str]:
        settings = ["-c", str(self.scratch / "pytest.ini"), f"--rootdir={self.folder}"]
        return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *settings, *words]

    def collect(self, file: str) -> list[str] | Outcome:
        """The tests of a file, or why they cannot be listed."""
        code, output, _ = self._start(self._pytest("--collect-only", "-q", file), COLLECTING)
        if code == 0:
            return [line for line in output.splitlines() if _NODE.match(line)]
        # pytest's code for a file without a test: for example all are for another device.
        if code == 5:
            return Outcome(Status.NOT_SUPPORTED, "the file has no test for this device", output)
        why = "took too long" if code is None else "failed"
        return Outcome(Status.ERROR, f"the collection of {file} {why}: {_last(output)}", output)

    def run(self, test: str) -> Outcome:
        """Run one test."""
        result = self.scratch / "result.xml"
        result.unlink(missing_ok=True)
        words = self._pytest("-q", f"--junitxml={result}", test)
        code, output, seconds = self._start(words, self.asked.limit)
        facts = {"seconds_in_ranks": round(seconds, 4)}
        if code is None:
            message = f"no answer within {self.asked.limit:g} s"
            return Outcome(Status.TIMEOUT, message, output, facts, failure="timeout")
        with contextlib.suppress(OSError, ET.ParseError):
            for case in ET.parse(result).iter("testcase"):  # noqa: S314  pytest has just written it
                return _outcome(case, output, facts)
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else describe_exit(code << 8)
        return Outcome(Status.CRASH, f"the process {ended}", output, facts, failure="crash")

    def _start(self, command: Sequence[str], limit: float) -> tuple[int | None, str, float]:
        """Run a command; returns its code (None if it took too long), its output, and its seconds."""
        began = time.monotonic()
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = None
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                pass
            finally:
                # Also the ranks that a test leaves behind.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            file.seek(0)
            output = file.read().decode("utf-8", "replace")
        return code, output[-MOST:], time.monotonic() - began


def _outcome(case: ET.Element, output: str, facts: dict[str, Any]) -> Outcome:
    for tag, status in (
        ("error", Status.ERROR),
        ("failure", Status.FAILED),
        ("skipped", Status.NOT_SUPPORTED),
    ):
        found = case.find(tag)
        if found is not None:
            message = " ".join(found.get("message", "").split()) or "no reason"
            if status.skipped:
                return Outcome(status, f"upstream says: {message}", facts=facts)
            raised = "raised" if status is Status.FAILED else ""
            return Outcome(status, message, output, facts, failure=raised)
    return Outcome(Status.PASSED, facts=facts)


def _last(output: str) -> str:
    errors = [line for line in output.splitlines() if line.startswith("E  ")]
    lines = errors or output.strip().splitlines() or ["no output"]
    return lines[-1].removeprefix("E").strip()


def _fewer(asked: Upstream, torch: str, found: Counter[str]) -> list[str]:
    """Compare the numbers of tests with the declared ones, and declare those of new files."""
    if asked.counts is None:
        return []
    known: dict[str, dict[str, int]] = {}
    with contextlib.suppress(FileNotFoundError):
        known = json.loads(asked.counts.read_text(encoding="utf-8"))
    release = known.setdefault(torch.partition("+")[0], {})
    complaints = [
        f"{file}: {found[file]} tests, and {release[file]} are declared"
        for file in asked.files
        if found[file] < release.get(file, 0)
    ]
    release.update({file: max(found[file], release.get(file, 0)) for file in asked.files})
    asked.counts.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return complaints


def _journal(asked: Upstream, torch: str, git: str, cases: list[str]) -> Journal:
    device = f"{asked.device}+upstream"
    cell = asked.cell or torch
    facts = {
        "torch": torch,
        "torch_git": git,
        "device": device,
        "selection": "upstream",
        "declared": len(cases),
        "command": " ".join(sys.argv),
    }
    about = {case: {"scenario": case.partition("/")[0], "family": "upstream"} for case in cases}
    asked.report_dir.mkdir(parents=True, exist_ok=True)
    header = {"cell": {"torch": cell, "device": device}, "facts": facts, "cases": cases}
    try:
        return Journal(*paths(asked.report_dir, cell, device), {**header, "about": about})
    except Taken as taken:
        raise BadRequest(str(taken)) from None


def lines(outcomes: dict[str, Outcome], complaints: list[str]) -> Iterator[str]:
    """One line for each test that did not pass, and the counts."""
    for case, outcome in outcomes.items():
        if outcome.status is not Status.PASSED:
            yield f"{case}: {outcome.status.value}: {outcome.message}"
    counts = Counter(outcome.status.value for outcome in outcomes.values())
    yield f"{len(outcomes)} tests: {', '.join(f'{n} {name}' for name, n in counts.items())}"
    yield from (f"the run fails: {complaint}" for complaint in complaints)
