"""torch's own test files in the matrix: files made here, which import no torch."""

from __future__ import annotations

import io
import json
import tarfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from loopback_index import serve

from distparity import cli
from distparity.bisection import observation
from distparity.bisection.observation import Question
from distparity.core.bad_request import BadRequest
from distparity.core.outcome import Outcome, Status
from distparity.core.processes import state
from distparity.report.read import read
from distparity.session import upstream, upstream_files
from distparity.session.upstream import Upstream, run

FILE = """
import os, signal, unittest
import beside

class TestIt(unittest.TestCase):
    def test_right(self): pass
    def test_wrong(self): self.assertEqual(beside.ONE, 2)
    def test_dies(self): os.kill(os.getpid(), signal.SIGKILL)
    def test_exits(self): os._exit(3)
    @unittest.skip("needs 2 GPUs")
    def test_skipped(self): pass
"""
TORCH = {"torch": "2.13.0+cpu", "torch_git": "unknown"}
IT = "upstream.fsdp.test_it/TestIt."
EXPECTED = {
    "test_right": ("passed", ""),
    "test_wrong": ("failed", "AssertionError: 1 != 2"),
    "test_dies": ("crash", "the process killed by SIGKILL"),
    "test_exits": ("crash", "the process exited with code 3"),
    "test_skipped": ("not supported", "upstream says: needs 2 GPUs"),
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pytorch" / "test" / "distributed"
    (folder / "fsdp").mkdir(parents=True)
    (folder / "beside.py").write_text("ONE = 1\n")
    (folder / "fsdp" / "test_it.py").write_text(FILE)
    (folder / "test_broken.py").write_text("import no_such_module\n")
    (folder / "test_none.py").write_text("")
    skips = "import unittest\n\nclass TestAll(unittest.TestCase):\n    @unittest.skip('no GPU')\n"
    (folder / "test_skips.py").write_text(f"{skips}    def test_a(self): pass\n")
    monkeypatch.setattr(
        upstream, "_TORCH", f"print({json.dumps(json.dumps([TORCH, None, 'npu']))})"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pytorch"


def test_each_test_has_an_outcome_of_its_own(checkout: Path) -> None:
    outcomes, complaints, xml = run(Upstream(str(checkout), ["fsdp/test_it.py"]))

    found = {case.removeprefix(IT): (o.status.value, o.message) for case, o in outcomes.items()}
    assert found == EXPECTED
    assert complaints == []
    assert xml.name == "junit-2.13.0+cpu-cpu+upstream.xml"
    # The report reads it as any other cell.
    (column,) = read(xml)
    assert {case.id: result.status for case, result in column.results.items()} == {
        f"{IT}{name}": status for name, (status, _) in EXPECTED.items()
    }


def test_a_test_that_hangs_ends_with_what_it_started(checkout: Path, tmp_path: Path) -> None:
    witness = tmp_path / "pid"
    (checkout / "test" / "distributed" / "test_hangs.py").write_text(
        "import subprocess, unittest\n\n"
        "class TestIt(unittest.TestCase):\n"
        "    def test_hangs(self):\n"
        "        print('its last words', flush=True)\n"
        "        process = subprocess.Popen(['sleep', '600'])\n"
        f"        open({str(witness)!r}, 'w').write(str(process.pid))\n"
        "        process.wait()\n"
    )

    (outcome,) = run(Upstream(str(checkout), ["test_hangs.py"], limit=15.0))[0].values()

    assert (outcome.status.value, outcome.message) == ("timeout", "no answer within 15 s")
    # What it printed, and where it was: both are in the report.
    assert "its last words" in outcome.detail
    assert "in test_hangs" in outcome.detail
    pid, until = int(witness.read_text()), time.monotonic() + 10
    while state(pid) not in ("gone", "zombie") and time.monotonic() < until:
        time.sleep(0.05)
    assert state(pid) in ("gone", "zombie")


def test_every_test_of_a_file_with_many_is_found(checkout: Path, tmp_path: Path) -> None:
    """Its list is longer than what is kept of a test's output."""
    many = "class TestIt:\n" + "".join(
        f"    def test_{'long' * 9}_{i}(self): pass\n" for i in range(999)
    )
    (checkout / "test" / "distributed" / "test_many.py").write_text(many)
    runner = upstream._Runner(Upstream(str(checkout), ["test_many.py"]), tmp_path)
    runner.enter(checkout / "test" / "distributed")

    found = runner.collect("test_many.py")

    assert isinstance(found, list) and len(found) == 999


STARTS = """
import multiprocessing, traceback, unittest

def act(): raise RuntimeError("No backend for mine")

class TestIt(unittest.TestCase):
    def test_it(self):
        process = multiprocessing.get_context("fork").Process(target=act, name="process 0")
        process.start()
        process.join()
        print("much is printed after that\\n" * 2000)
        assert process.exitcode == 0, f"Expected exit code 0 for pid: {process.pid}"

    def test_told(self):
        try:
            act()
        except RuntimeError:
            # Without the lines that newer Pythons put below the source.
            told = traceback.format_exc().replace("^", " ") + "\\nTo execute this test\\n" * 20
        raise RuntimeError(f"Process 3 exited with error code 10 and exception:\\n{told}")

    def test_worker(self):
        try:
            act()
        except RuntimeError:
            told = traceback.format_exc().replace("^", " ") + "To execute this test\\n" * 20
        raise RuntimeError(f"Exception in worker process:\\n{told}")
"""


def test_what_a_process_of_the_test_raised_is_the_message(checkout: Path) -> None:
    (checkout / "test" / "distributed" / "test_starts.py").write_text(STARTS)

    outcomes = list(run(Upstream(str(checkout), ["test_starts.py"]))[0].values())

    # The text of the first has a process's number, which no expectation could name; pytest keeps only the
    # first lines of the others.
    assert {outcome.message for outcome in outcomes} == {
        "a process of the test raised RuntimeError: No backend for mine"
    }
    assert len(outcomes) == 3
    assert "Expected exit code 0 for pid" in outcomes[0].detail
    assert len(outcomes[0].detail) == upstream.MOST


BEGINS = 'Process process {}:\nTraceback (most recent call last):\n  File "a.py", line 1, in f\n'


@pytest.mark.parametrize(
    ("output", "message"),
    [
        pytest.param(
            BEGINS.format(0) + "KeyError: 'a'\n",
            "a process of the test raised KeyError: 'a'",
            id="one",
        ),
        pytest.param(
            BEGINS.format(0) + BEGINS.format(1) + "KeyError: 'b'\nKeyError: 'a'\n",
            "a process of the test raised KeyError: 'b'",
            id="two, one of them whole",
        ),
        pytest.param(
            BEGINS.format(0).replace("Trace", "Process process 1:\nTrace")
            + "Traceback (most recent call last):\nKeyError: 'b'\n",
            "got exit code 1",
            id="two in each other's lines",
        ),
        pytest.param("no words\n", "got exit code 1", id="without a word"),
    ],
)
def test_processes_that_print_at_once(output: str, message: str) -> None:
    case = ET.fromstring('<testcase><failure message="got exit code 1"/></testcase>')

    assert upstream._outcome(case, output, {}).message == message


def test_a_file_that_cannot_be_collected_is_an_error_and_the_next_one_runs(checkout: Path) -> None:
    outcomes, _, _ = run(
        Upstream(str(checkout), ["test_broken.py", "test_none.py", "test_skips.py"])
    )

    assert {case: outcome.status.value for case, outcome in outcomes.items()} == {
        "upstream.test_broken/collection": "error",
        "upstream.test_none/collection": "not supported",
        "upstream.test_skips/TestAll.test_a": "not supported",
    }
    (error, *_) = outcomes.values()
    assert error.message.endswith("ModuleNotFoundError: No module named 'no_such_module'")


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py", "a/../../outside.py"])
def test_archive_with_a_file_outside_of_it_is_refused(tmp_path: Path, name: str) -> None:
    source = tmp_path / "a.tar"
    (tmp_path / "scratch").mkdir()
    with tarfile.open(source, "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())

    with pytest.raises(BadRequest, match="it has a file outside of it"):
        upstream_files.get(str(source), "2.13.0", tmp_path / "scratch")
    assert not list(tmp_path.rglob("outside.py"))


def test_archive_is_its_files_without_links(tmp_path: Path) -> None:
    source = tmp_path / "a.tar"
    with tarfile.open(source, "w") as archive:
        link = tarfile.TarInfo("pytorch/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        file = tarfile.TarInfo("pytorch/test/distributed/test_a.py")
        file.size = 4
        archive.addfile(file, io.BytesIO(b"pass"))
    (tmp_path / "scratch").mkdir()

    found = upstream_files.get(str(source), "2.13.0", tmp_path / "scratch").folder

    assert [path.name for path in found.iterdir()] == ["test_a.py"]
    assert (found / "test_a.py").read_text() == "pass"
    assert not list(tmp_path.rglob("link"))


def test_what_is_all_skipped_or_fewer_than_declared_is_red(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "pytorch.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(checkout, "pytorch-2.13.0")
    counts = tmp_path / "counts.json"
    counts.write_text(json.dumps({"2.13.0": {"test_skips.py": 2}, "2.12.0": {}}))
    words = ["--upstream", str(archive), "--counts", str(counts), "--cell", "2.13"]

    code = cli.main(["upstream", "test_skips.py", *words])

    told = capsys.readouterr().out
    assert code == 1
    assert "the run fails: test_skips.py: 1 tests, and 2 are declared" in told
    assert "the run fails: every test was skipped" in told
    # What is declared is never lowered.
    assert json.loads(counts.read_text())["2.13.0"] == {"test_skips.py": 2}
    assert (tmp_path / "reports" / "junit-2.13-cpu+upstream.xml").is_file()


def test_a_file_or_folder_that_there_is_not_is_refused(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"has no test_gone\.py"):
        run(Upstream(str(checkout), ["test_gone.py"]))
    with pytest.raises(BadRequest, match="no such folder or archive"):
        run(Upstream(str(tmp_path / "gone"), ["test_skips.py"]))


@pytest.mark.parametrize("source", ["v{release}.tar.gz", "{address}/v{release}.tar.gz"])
def test_one_source_serves_several_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    with tarfile.open(tmp_path / "v2.13.0.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("pytorch-2.13.0/test/distributed/test_a.py"))

    with serve(tmp_path) as address:
        named = source.replace("{address}", address.replace("//", "//user:secret@"))
        found = upstream_files.get(named, "2.13.0", tmp_path / "scratch")

    assert [path.name for path in found.folder.iterdir()] == ["test_a.py"]
    name, _, checksum = found.origin.partition(" sha256:")
    assert name.endswith("v2.13.0.tar.gz")
    assert "secret" not in name
    assert len(checksum) == 64


def test_an_address_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    told = r"gone\.tar cannot be fetched: File not found"
    with serve(tmp_path) as address, pytest.raises(BadRequest, match=told):
        upstream_files.get(f"{address}/gone.tar", "2.13.0", tmp_path)


# -- expectations, bundles, bisection --------------------------------------------------------------

A, B, C = (f"upstream.test_a/TestIt.test_{name}" for name in "abc")


@pytest.fixture
def fake(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests without processes: of the file test_a, a passes, b fails, and c prints a secret."""
    for name in "ab":
        (checkout / "test" / "distributed" / f"test_{name}.py").touch()
    monkeypatch.setattr(upstream._Runner, "facts", lambda _: dict(TORCH))
    named = [f"TestIt::test_{name}" for name in "abc"]
    monkeypatch.setattr(
        upstream._Runner, "collect", lambda _, file: [f"{file}::{name}" for name in named]
    )
    monkeypatch.setenv("VENDOR_TOKEN", "0123456789abcdef")

    def run_one(_: object, test: str) -> Outcome:
        if test.endswith("test_a"):
            return Outcome(Status.PASSED)
        detail = "0123456789abcdef" if test.endswith("test_c") else ""
        return Outcome(Status.FAILED, "RuntimeError: no AVG", detail, failure="raised")

    monkeypatch.setattr(upstream._Runner, "run", run_one)
    return checkout


def entry(cases: str, more: str = 'failure = "raised"\nerror = "no AVG"') -> str:
    return (
        f'[[expect]]\n{cases}\ndevice = "cpu"\ntorch = ">=2.10"\n{more}\n'
        'reason = "no AVG yet"\nlink = "https://example.org/1"\n'
    )


NO_AVG = 'failure = "crash"\nerror = "AVG"\nnot_run = true'
JUDGED = {
    "none": ("", {A: "passed", B: "failed", C: "failed"}),
    "ids": (
        entry(f'cases = ["{B}", "{C}"]'),
        {A: "passed", B: "expected failure", C: "expected failure"},
    ),
    "patterns": (
        entry('scenario = "upstream.test_*"\nstrategy = "TestIt.test_[bc]"'),
        {A: "passed", B: "expected failure", C: "expected failure"},
    ),
    "fixed": (
        entry(f'cases = ["{A}"]'),
        {A: "unexpectedly fixed", B: "failed", C: "failed"},
    ),
    "another failure": (
        entry(f'cases = ["{B}"]', 'failure = "raised"\nerror = "no MAX"'),
        {A: "passed", B: "failed", C: "failed"},
    ),
    "not run": (entry(f'cases = ["{B}"]', NO_AVG), {A: "passed", B: "not run", C: "failed"}),
    "of another device": (
        entry(f'cases = ["{B}"]').replace('"cpu"', '"xpu"'),
        {A: "passed", B: "failed", C: "failed"},
    ),
    "of another file": (
        entry('cases = ["upstream.test_b/TestIt.gone"]'),
        {A: "passed", B: "failed", C: "failed"},
    ),
    "of distparity": (
        entry('cases = ["basic/ddp-ws2-float32"]'),
        {A: "passed", B: "failed", C: "failed"},
    ),
}


@pytest.mark.parametrize(("text", "expected"), JUDGED.values(), ids=JUDGED)
def test_expectations_judge_torchs_own_tests(
    fake: Path, tmp_path: Path, text: str, expected: dict[str, str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)

    outcomes, complaints, _ = run(Upstream(str(fake), ["test_a.py"], expectations=[file]))

    assert {case: outcome.status.value for case, outcome in outcomes.items()} == expected
    assert complaints == []


UNFIT = {
    "no such test": ('cases = ["upstream.test_a/TestIt.gone"]', r"no case here matches .*gone"),
    "no such name": (
        'scenario = "upstream.test_a"\nstrategy = "Gone.*"',
        r"no case here matches strategy 'Gone\.\*'",
    ),
    "two kinds of test": (
        f'cases = ["{A}", "basic/ddp-ws2-float32"]',
        "torch's own tests and cases of distparity: use two entries",
    ),
    "ranks": (
        'scenario = "upstream.test_a"\nworld_size = 2',
        "torch's own tests have no world_size",
    ),
}


@pytest.mark.parametrize(("cases", "told"), UNFIT.values(), ids=UNFIT)
def test_an_entry_that_names_no_test_of_a_file_is_refused(
    fake: Path, tmp_path: Path, cases: str, told: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(entry(cases))

    with pytest.raises(BadRequest, match=told):
        run(Upstream(str(fake), ["test_a.py"], expectations=[file]))


def test_proposed_entries_make_the_run_green_and_the_bundle_has_them(
    fake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["upstream", "test_a.py", "--upstream", str(fake)]
    assert cli.main(words) == 1
    xml = "reports/junit-2.13.0+cpu-cpu+upstream.xml"
    why = ["--reason", "no AVG yet", "--link", "https://example.org/1"]

    assert cli.main(["expectations", "update", xml, "-o", "mine.toml", *why]) == 0
    assert cli.main(["expectations", "check", "mine.toml"]) == 0
    assert cli.main([*words, "--expectations", "mine.toml"]) == 0
    # A bundle knows which file the run had.
    assert cli.main(["bundle", "reports", "-o", "without.zip"]) == 4
    assert "add it: --expectations mine.toml" in capsys.readouterr().err
    assert cli.main(["bundle", "reports", "--expectations", "mine.toml"]) == 0
    assert cli.main(["bundle", "--verify", "bundle.zip"]) == 0
    (column,) = read(tmp_path / xml)
    assert {row.id: result.status for row, result in column.results.items()} == {
        A: "passed",
        B: "expected failure",
        C: "expected failure",
    }
    (rerun,) = (result.rerun for row, result in column.results.items() if row.id == C)
    assert rerun == f"distparity upstream --upstream {fake} --device cpu --case {C}"
    assert "0123456789abcdef" not in (tmp_path / xml).read_text()
    assert column.facts["upstream"].startswith(str(fake))


def test_an_interrupted_run_has_its_results(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_one = upstream._Runner.run

    def interrupted(runner: Any, test: str) -> Outcome:
        if test.endswith("test_b"):
            raise KeyboardInterrupt
        return run_one(runner, test)

    monkeypatch.setattr(upstream._Runner, "run", interrupted)

    outcomes, complaints, xml = run(Upstream(str(fake), ["test_a.py"]))

    assert outcomes.keys() == {A}
    assert complaints == ["interrupted, with 2 tests to go"]
    (column,) = read(xml)
    assert {row.id: result.status for row, result in column.results.items()} == {
        A: "passed",
        B: "missing",
        C: "missing",
    }


@pytest.mark.parametrize(
    ("cases", "ran"),
    [([B], {B}), (["upstream.test_a/TestIt.*"], {A, B, C}), ([A, C], {A, C})],
)
def test_a_test_runs_alone(fake: Path, cases: list[str], ran: set[str]) -> None:
    assert run(Upstream(str(fake), [], cases=cases))[0].keys() == ran


@pytest.mark.parametrize(
    ("device", "custom"), [("cpu", None), ("xpu", None), ("npu", "privateuse1,npu")]
)
def test_files_for_named_devices_run_on_one_from_outside_of_torch(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, custom: str | None
) -> None:
    """torch asks this variable; its registration is that of every user, by the entry point."""
    monkeypatch.delenv("PYTORCH_TESTING_DEVICE_FOR_CUSTOM", raising=False)
    runner = upstream._Runner(Upstream(str(checkout), ["test_it.py"], device=device), tmp_path)

    assert runner.facts() == TORCH
    assert runner.variables.get("PYTORCH_TESTING_DEVICE_FOR_CUSTOM") == custom


#: A torch with two devices, one of which is not there.
FAKE = """
from types import SimpleNamespace as S
__version__ = "2.13.0"
version = S(git_version="abc", cuda=None)
_C = S(_get_privateuse1_backend_name=lambda: "mine")
here = S(device_count=lambda: 2, get_device_name=lambda _: "a card")
nameless = S(device_count=lambda: 2)
empty = S(device_count=lambda: 0)
broken = S(device_count=lambda: open("/no/driver"))
"""
ABSENT = {
    "here": ({}, None),
    "nameless": ({}, None),
    "empty": ({}, r"torch\.empty\.device_count\(\) is 0"),
    "broken": ({}, "FileNotFoundError: .*/no/driver"),
    "unknown": ({}, "torch 2.13.0 has no torch.unknown; .* entry point torch.backends$"),
    "off": ({"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}, "TORCH_DEVICE_BACKEND_AUTOLOAD=0 switches off"),
}


@pytest.mark.parametrize(("device", "variables", "told"), [(k, *v) for k, v in ABSENT.items()])
def test_a_device_that_torch_does_not_have_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    variables: dict[str, str],
    told: str | None,
) -> None:
    """Otherwise every test would be skipped, or would run on something else."""
    (tmp_path / "torch.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    runner = upstream._Runner(
        Upstream("pytorch", ["test_a.py"], device=device, environment=variables), tmp_path
    )

    if told is None:
        assert runner.facts()["device_count"] == 2
        return
    with pytest.raises(BadRequest, match=f"there is no device {device}: .*{told}"):
        runner.facts()


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("2.13.0a0", "the files are of torch 2.13.0a0, and torch 2.13.0 runs them"),
        ("2.12.1a0", "2.12.1a0, and torch 2.13.0 runs them: a test may fail because they differ"),
        (None, "the files are of torch unknown, and torch 2.13.0 runs them: a test may fail"),
    ],
)
def test_files_of_another_release_are_named(
    checkout: Path, tmp_path: Path, version: str | None, told: str
) -> None:
    if version is not None:
        (checkout / "version.txt").write_text(f"{version}\n")
    lines: list[str] = []

    _, _, xml = run(Upstream(str(checkout), ["test_none.py"]), lines.append)

    assert any(told in line for line in lines)
    assert ("may fail" in lines[0]) == ("may fail" in told)
    assert read(xml)[0].facts["upstream_version"] == (version or "unknown")


@pytest.mark.parametrize("cases", [["basic/ddp-ws2-float32"], ["upstream.*/test_a"], []])
def test_what_names_no_file_is_refused(cases: list[str]) -> None:
    with pytest.raises(BadRequest, match=r"not the id of a test|name a file"):
        Upstream("pytorch", [], cases=cases)


def test_bisection_asks_each_release_for_the_test(fake: Path, tmp_path: Path) -> None:
    """Its question is a command line of this release, and the XML is an answer that it can read."""
    question = Question(B, upstream=str(fake))

    assert cli.main([*question.words, "--cell", "bisect", "--report-dir", "asked"]) == 1

    seen = observation.read(tmp_path / "asked" / "junit-bisect-cpu+upstream.xml")
    assert (seen.kind, seen.message, seen.torch) == ("fails", "RuntimeError: no AVG", "2.13.0+cpu")


BISECT = {
    "a case of distparity": (["--case", "basic/ddp-ws2-float32"], "not the id of a test"),
    "several": (["--case", "upstream.test_a/TestIt.*"], "one test, not a pattern"),
    "a plug-in": (["--case", A, "--device-plugin", "a:B"], "have no effect on torch's own tests"),
}


@pytest.mark.parametrize(("words", "told"), BISECT.values(), ids=BISECT)
def test_bisection_of_torchs_own_tests_refuses(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    ends = ["--good", "2.8", "--bad", "2.13", "--upstream", "pytorch-{release}"]

    assert cli.main(["bisect", *ends, *words]) == 4
    assert told in capsys.readouterr().err
