"""torch's own test files in the matrix: files made here, which import no torch."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from distparity import cli
from distparity.core.bad_request import BadRequest
from distparity.core.processes import state
from distparity.report.read import read
from distparity.session import upstream
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
    monkeypatch.setattr(upstream, "_TORCH", "print('[\"2.13.0+cpu\", null]')")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pytorch"


def test_each_test_has_an_outcome_of_its_own(checkout: Path) -> None:
    outcomes, complaints, xml = run(Upstream(checkout, ["fsdp/test_it.py"]))

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
        "        process = subprocess.Popen(['sleep', '600'])\n"
        f"        open({str(witness)!r}, 'w').write(str(process.pid))\n"
        "        process.wait()\n"
    )

    (outcome,) = run(Upstream(checkout, ["test_hangs.py"], limit=15.0))[0].values()

    assert (outcome.status.value, outcome.message) == ("timeout", "no answer within 15 s")
    assert not witness.exists() or state(int(witness.read_text())) in ("gone", "zombie")


def test_a_file_that_cannot_be_collected_is_an_error_and_the_next_one_runs(checkout: Path) -> None:
    outcomes, _, _ = run(Upstream(checkout, ["test_broken.py", "test_none.py", "test_skips.py"]))

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
    with tarfile.open(source, "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())

    with pytest.raises(BadRequest, match="it has a file outside of it"):
        upstream._folder(source, tmp_path / "scratch")
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

    found = upstream._folder(source, tmp_path / "scratch")

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
        run(Upstream(checkout, ["test_gone.py"]))
    with pytest.raises(BadRequest, match="no such folder or archive"):
        run(Upstream(tmp_path / "gone", ["test_skips.py"]))
