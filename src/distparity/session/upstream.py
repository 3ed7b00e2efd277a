"""Run test files of torch's own repository, unmodified, each test in a process of its own.

A test that crashes or hangs costs itself alone. The results are a cell of the matrix: the same side file
and XML as those of a run. Nothing of these files is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.version import Version

from distparity import expectations
from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.naming import COLLECTION, UPSTREAM
from distparity.core.outcome import Outcome, Status
from distparity.core.processes import describe_exit
from distparity.core.redact import Redactor
from distparity.results import junit_writer
from distparity.results.journal import Journal, Taken, paths
from distparity.session import upstream_files, wording

__all__ = ["Upstream", "lines", "run"]

#: Seconds to import a file and to list its tests.
COLLECTING = 600.0
#: Seconds to write where a test was that took too long.
TO_TELL = 5.0
#: The most characters of a test's output that are kept, and the most bytes that are read: of a list of
#: tests, all of them.
MOST, MOST_READ = 20_000, 1 << 26
_NODE = re.compile(r"^(\S+\.py)::(\S.*)$")
#: A process that a test has started raised: as that process prints it, and as torch's two helpers tell it
#: in the lines of pytest. Of processes that print at once, one whose lines are together.
_CHILD = re.compile(
    r"^(?:Process process \d+:\nTraceback.*\n(?:[ \t].*\n)+(?!Traceback|Process )(\S.*)"
    r"|(E +)RuntimeError: (?:Process \d+ exited with error code \d+ and|Exception in worker process:).*\n"
    r"\2Traceback.*\n(?:\2[ \t].*\n)+\2(\S.*))$",
    re.MULTILINE,
)
#: What such a test says by itself.
_ENDED = re.compile("exit code|exited with error code|Exception in worker process")
#: What the facts of the cell are asked with: they are as of any other cell. Then why torch has no such
#: device, and the name of the device from outside of torch.
_TORCH = """
import json, os, sys, torch
kind, v, absent = sys.argv[1], torch.version, None
facts = {"torch": torch.__version__, "torch_git": v.git_version or "unknown",
         "torch_cuda": v.cuda or "none", "torch_hip": getattr(v, "hip", None) or "none"}
try:
    if kind != "cpu":
        module = getattr(torch, kind)
        facts["device_count"] = count = module.device_count()
        if not count:
            absent = f"torch.{kind}.device_count() is 0"
        else:
            facts["device_name"] = str(module.get_device_name(0))
except AttributeError as error:
    if hasattr(torch, kind):
        facts["device_name"] = f"unknown: {error}"
    else:
        absent = f"torch {torch.__version__} has no torch.{kind}; a vendor's package registers it by the "
        absent += "entry point torch.backends"
        if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0":
            absent += ", which TORCH_DEVICE_BACKEND_AUTOLOAD=0 switches off"
except Exception as error:
    absent = f"{type(error).__name__}: {error}"
print(json.dumps([facts, absent, torch._C._get_privateuse1_backend_name()]))
"""


@dataclass
class Upstream:
    """What the user asked for. ``source`` is what :func:`distparity.session.upstream_files.get` takes."""

    source: str
    #: Relative to ``test/distributed``.
    files: list[str]
    device: str = "cpu"
    limit: float = 300.0
    report_dir: Path = Path("reports")
    cell: str | None = None
    #: JSON: by release and file, how many tests there are.
    counts: Path | None = None
    #: Only these tests: ids, or patterns for them. Their files are run too.
    cases: list[str] = field(default_factory=list)
    expectations: list[Path] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises :class:`BadRequest`."""
        for case in self.cases:
            scenario, separator, _ = case.partition("/")
            if not separator or not scenario.startswith(UPSTREAM) or "*" in scenario:
                raise BadRequest(
                    f"--case {case}: not the id of a test like {UPSTREAM}fsdp.test_fsdp_core/Class.test"
                )
            self.files.append(_file(case))
        self.files = list(dict.fromkeys(self.files))
        if not self.files:
            raise BadRequest("name a file, or a test with --case")

    def wants(self, case: Case) -> bool:
        """Whether a test of the files is to be run."""
        return not self.cases or any(fnmatchcase(case.id, pattern) for pattern in self.cases)


def run(
    asked: Upstream, tell: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Outcome], list[str], Path]:
    """Run every test of the files; returns the outcomes by id, the complaints, and the XML.

    A complaint makes the run red although no test failed. ``tell`` gets a line for each test that has
    ended. Raises :class:`BadRequest`.
    """
    redactor = Redactor(os.environ)
    entries = _entries(asked)
    with tempfile.TemporaryDirectory(prefix="distparity-upstream-") as scratch:
        runner = _Runner(asked, Path(scratch))
        about = runner.facts()
        release = Version(about["torch"]).public
        sources = upstream_files.get(asked.source, release, Path(scratch))
        runner.enter(sources.folder)
        tell(_whose(sources.version, release))
        absent = [file for file in asked.files if not (sources.folder / file).is_file()]
        if absent:
            raise BadRequest(f"{sources.folder} has no {absent[0]}")
        outcomes: dict[Case, Outcome] = {}
        tests: dict[Case, str] = {}
        for file in asked.files:
            found = runner.collect(file)
            if isinstance(found, Outcome):
                outcomes[_case(file, COLLECTION, asked.device)] = found
            else:
                tests |= {_case(*_parts(test), asked.device): test for test in found}
        complaints = _fewer(asked, release, Counter(_parts(test)[0] for test in tests.values()))
        facts = {
            **about,
            **_facts(asked, sources, redactor),
            "expectations": entries.files or "none",
        }
        expected = _expected(entries, list(tests), facts)
        tests = {case: test for case, test in tests.items() if asked.wants(case)}
        facts["declared"] = len(outcomes) + len(tests)
        journal = _journal(asked, facts, [*outcomes, *tests], redactor)
        for case, outcome in outcomes.items():
            journal.add(case.id, outcome)
        ended = "finished"
        try:
            for case, test in tests.items():
                entry = expected.get(case.id)
                spared = entry is not None and entry.not_run
                outcome = entry.spared() if entry and spared else runner.run(test)
                if entry is not None and not spared:
                    outcome = entry.judge(outcome)
                outcomes[case] = Outcome.from_json(redactor.all(outcome.to_json()))
                journal.add(case.id, outcomes[case])
                tell(f"[{len(outcomes)}/{facts['declared']}] {case.id}: {outcome.status.value}")
        except KeyboardInterrupt:
            ended = f"interrupted, with {len(tests.keys() - outcomes.keys())} tests to go"
            complaints.append(ended)
        journal.end(ended)
    if outcomes and all(outcome.status.skipped for outcome in outcomes.values()):
        complaints.append("every test was skipped")
    if not outcomes:
        complaints.append("there is no test")
    by_id = {case.id: outcome for case, outcome in outcomes.items()}
    return by_id, complaints, junit_writer.write_from_journal(journal.path)


def _entries(asked: Upstream) -> expectations.Expectations:
    """The expectation files; raises :class:`BadRequest`."""
    try:
        return expectations.load(asked.expectations)
    except expectations.Wrong as error:
        raise BadRequest(str(error)) from None


def _expected(
    found: expectations.Expectations, cases: list[Case], facts: dict[str, Any]
) -> dict[str, expectations.Entry]:
    """The entry of each test. What an entry says of files that were not collected is left out.

    Raises :class:`BadRequest` for an entry that names no test of a file that was.
    """
    scenarios = {case.scenario for case in cases}
    own = [
        narrowed
        for entry in found.entries
        if entry.upstream and (narrowed := _of_files(entry, scenarios)) is not None
    ]
    kinds = {case.device for case in cases}
    here = expectations.Surroundings(str(facts["torch"]), tuple(kinds), facts)
    try:
        return expectations.assign(own, here, cases, found.pins)
    except expectations.Wrong as error:
        raise BadRequest(str(error)) from None


def _of_files(entry: expectations.Entry, scenarios: set[str]) -> expectations.Entry | None:
    """The entry about these files only; None if it is about others."""
    cases = tuple(case for case in entry.cases if case.partition("/")[0] in scenarios)
    patterns = tuple(
        pattern
        for pattern in entry.patterns.get("scenario", ())
        if pattern.startswith("!") or any(fnmatchcase(name, pattern) for name in scenarios)
    )
    if entry.cases:
        return replace(entry, cases=cases) if cases else None
    if not any(not pattern.startswith("!") for pattern in patterns):
        return None
    return replace(entry, patterns={**entry.patterns, "scenario": patterns})


def _parts(test: str) -> tuple[str, str]:
    found = _NODE.match(test)
    assert found is not None
    return found[1], found[2]


def _file(case: str) -> str:
    """The file of a test, relative to ``test/distributed``, by the test's id."""
    return f"{case.partition('/')[0].removeprefix(UPSTREAM).replace('.', '/')}.py"


def _case(file: str, name: str, device: str) -> Case:
    """The test of a file; its id, ``upstream.fsdp.test_x/Class.test``, is the same in every cell."""
    scenario = UPSTREAM + file.removesuffix(".py").replace("/", ".")
    return Case(scenario, name.replace("::", "."), 0, "", device)


class _Runner:
    """Starts pytest for one file or one test."""

    def __init__(self, asked: Upstream, scratch: Path) -> None:
        self.asked, self.scratch, self.folder = asked, scratch, scratch
        # Neither the configuration of torch's repository nor that of the current folder.
        (scratch / "pytest.ini").write_text("[pytest]\n")
        own = {} if asked.device == "cpu" else {"PYTORCH_TESTING_DEVICE_ONLY_FOR": asked.device}
        if asked.device == "cpu":
            own = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
        own["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        self.variables = {**os.environ, **own, **asked.environment}

    def enter(self, folder: Path) -> None:
        """Run what comes in the folder of the files."""
        self.folder = folder
        # Test files import what lies beside them.
        path = filter(None, [str(folder), self.variables.get("PYTHONPATH", "")])
        self.variables["PYTHONPATH"] = os.pathsep.join(path)

    def facts(self) -> dict[str, Any]:
        """What torch says about itself and the device. Raises :class:`BadRequest`."""
        command = [sys.executable, "-c", _TORCH, self.asked.device]
        code, output, _ = self._start(command, COLLECTING)
        if code != 0:
            raise BadRequest("torch cannot be imported", output[-MOST:])
        found: dict[str, Any]
        found, absent, outside = json.loads(output.splitlines()[-1])
        if absent is not None:
            raise BadRequest(f"there is no device {self.asked.device}: {absent}")
        if self.asked.device == outside:
            # Files that are for named devices run on it too. torch has both names for it: some of its
            # releases compare with the one, some with the other.
            self.variables["PYTORCH_TESTING_DEVICE_FOR_CUSTOM"] = f"privateuse1,{outside}"
        return found

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
            return Outcome(
                Status.NOT_SUPPORTED, "the file has no test for this device", output[-MOST:]
            )
        why = "took too long" if code is None else "failed"
        message = f"the collection of {file} {why}: {_last(output)}"
        return Outcome(Status.ERROR, message, output[-MOST:])

    def run(self, test: str) -> Outcome:
        """Run one test."""
        result = self.scratch / "result.xml"
        result.unlink(missing_ok=True)
        # What pytest holds back is lost if it is killed.
        words = self._pytest("-q", "--capture=no", f"--junitxml={result}", test)
        code, output, seconds = self._start(words, self.asked.limit)
        facts = {"seconds_in_ranks": round(seconds, 4)}
        if code is None:
            message = f"no answer within {self.asked.limit:g} s"
            return Outcome(Status.TIMEOUT, message, output[-MOST:], facts, failure="timeout")
        with contextlib.suppress(OSError, ET.ParseError):
            for case in ET.parse(result).iter("testcase"):  # noqa: S314  pytest has just written it
                return _outcome(case, output, facts)
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else describe_exit(code << 8)
        return Outcome(Status.CRASH, f"the process {ended}", output[-MOST:], facts, failure="crash")

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
                # pytest then writes the stacks of its threads.
                process.send_signal(signal.SIGABRT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(TO_TELL)
            finally:
                # Also the ranks that a test leaves behind.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            file.seek(max(0, file.seek(0, os.SEEK_END) - MOST_READ))
            output = file.read().decode("utf-8", "replace")
        return code, output, time.monotonic() - began


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
            child = _CHILD.search(output)
            if child is not None and _ENDED.search(message):
                # The number of the process differs from run to run, and pytest cuts what it was told.
                message = f"a process of the test raised {child[1] or child[3]}"
            return Outcome(status, message, output[-MOST:], facts, failure=raised)
    return Outcome(Status.PASSED, facts=facts)


def _whose(version: str, release: str) -> str:
    """Of which torch the files are, by the repository's version.txt: 2.13.0a0 on the way to 2.13.0."""
    files = f"the files are of torch {version or 'unknown'}, and torch {release} runs them"
    same = version.partition("a")[0] == release
    return files if same else f"{files}: a test may fail because they differ"


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
    release = known.setdefault(torch, {})
    complaints = [
        f"{file}: {found[file]} tests, and {release[file]} are declared"
        for file in asked.files
        if found[file] < release.get(file, 0)
    ]
    release.update({file: max(found[file], release.get(file, 0)) for file in asked.files})
    asked.counts.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return complaints


def _facts(asked: Upstream, sources: upstream_files.Sources, redactor: Redactor) -> dict[str, Any]:
    return {
        "device": f"{asked.device}+upstream",
        "selection": "upstream",
        "upstream": redactor.text(sources.origin),
        "upstream_version": sources.version or "unknown",
        **wording.surroundings(["distparity", *sys.argv[1:]], redactor),
    }


def _named(case: Case) -> list[str]:
    """The words that ask for one test again, or for a file that could not be collected."""
    return [_file(case.id)] if case.strategy == COLLECTION else ["--case", case.id]


def _journal(
    asked: Upstream, facts: dict[str, Any], cases: list[Case], redactor: Redactor
) -> Journal:
    again = ["distparity", "upstream", "--upstream", asked.source, "--device", asked.device]
    about = {
        case.id: {
            "scenario": case.scenario,
            "family": "upstream",
            "rerun": redactor.command(shlex.join([*again, *_named(case)])),
        }
        for case in cases
    }
    torch, device = asked.cell or str(facts["torch"]), str(facts["device"])
    asked.report_dir.mkdir(parents=True, exist_ok=True)
    cell = {"torch": torch, "device": device}
    header = {"cell": cell, "facts": facts, "cases": list(about), "about": about}
    try:
        return Journal(*paths(asked.report_dir, torch, device), header)
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
