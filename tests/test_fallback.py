"""Reports that their folder has no room for go elsewhere, and what is said of that."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
from pathlib import Path

import pytest

from distparity.core.outcome import Outcome, Status
from distparity.results import fallback, junit_writer
from distparity.results.journal import Journal, paths

HEADER = {"cell": {"torch": "2.13", "device": "cpu"}, "facts": {}, "cases": ["a/x"]}
FULL = OSError(errno.ENOSPC, "No space left on device")
PLACES = [tempfile.gettempdir(), str(Path.cwd()), str(Path.home()), "/dev/shm"]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    path, xml = paths(tmp_path / "reports", "2.13", "cpu")
    path.parent.mkdir()
    journal = Journal(path, xml, HEADER)
    journal.add("a/x", Outcome(Status.PASSED))
    journal.end("finished")
    return journal


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: str | None) -> list[str]:
    """The places that were asked to take the reports; only ``room`` does."""
    places: list[str] = []
    make = tempfile.mkdtemp

    def mkdtemp(*, prefix: str, **where: str | Path) -> str:
        places.append(str(where["dir"]))
        if places[-1] != room:
            raise FULL
        return make(prefix=prefix, dir=tmp_path)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    return places


def test_reports_are_in_their_folder_where_it_has_room(journal: Journal) -> None:
    assert fallback.write(journal) == (journal.xml, "")
    assert junit_writer.statuses(journal.xml) == {"a/x": "passed"}


@pytest.mark.parametrize("room", PLACES)
def test_the_first_place_with_room_takes_them(
    journal: Journal, asked: list[str], room: str, tmp_path: Path
) -> None:
    journal.error = FULL

    found, complaint = fallback.write(journal)

    assert asked == PLACES[: PLACES.index(room) + 1]
    assert found is not None
    assert found.parent.name.startswith("distparity-reports-")
    assert sorted(path.name for path in found.parent.iterdir()) == [
        "junit-2.13-cpu.jsonl",
        "junit-2.13-cpu.xml",
    ]
    assert junit_writer.statuses(found) == {"a/x": "passed"}
    assert complaint == (
        f"the reports could not be written to {tmp_path / 'reports'} ({FULL}); "
        f"they are in {found.parent}"
    )


@pytest.mark.parametrize("room", [None])
def test_where_no_place_has_room_that_is_said(
    journal: Journal, asked: list[str], tmp_path: Path
) -> None:
    journal.error = FULL

    found, complaint = fallback.write(journal)

    assert found is None
    assert complaint == (
        f"the reports could not be written to {tmp_path / 'reports'} ({FULL}), nor anywhere else: "
        "only this terminal shows the results"
    )
    assert asked == PLACES


@pytest.mark.parametrize("room", ["/dev/shm"])
def test_a_place_that_cannot_be_named_is_passed_over(
    journal: Journal, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk there is no temporary folder; the current one may be gone; nobody has a home."""

    def gone(*_: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "gone")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    journal.error = FULL
    monkeypatch.setattr(tempfile, "gettempdir", gone)
    monkeypatch.setattr(os, "getcwd", gone)
    monkeypatch.setattr(Path, "home", homeless)

    found, _ = fallback.write(journal)
    monkeypatch.undo()

    assert found is not None
    assert asked == ["/dev/shm"]


@pytest.mark.parametrize("room", PLACES[:1])
@pytest.mark.parametrize("gone", [False, True], ids=["full", "gone"])
def test_a_place_that_takes_a_folder_and_no_file_keeps_nothing(
    journal: Journal,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    gone: bool,
) -> None:
    def save(self: Journal, path: Path) -> None:
        path.write_text("half")
        if gone:
            shutil.rmtree(path.parent)
        raise FULL

    journal.error = FULL
    monkeypatch.setattr(Journal, "save", save)

    found, _ = fallback.write(journal)

    assert found is None
    assert asked == PLACES
    assert not list(tmp_path.glob("distparity-reports-*"))


@pytest.mark.parametrize("room", PLACES[:1])
def test_without_descriptors_nothing_is_left(
    journal: Journal, asked: list[str], tmp_path: Path
) -> None:
    """Neither a folder elsewhere, nor half an XML; the folder cannot even be listed."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
    try:
        found, _ = fallback.write(journal)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)

    assert found is None
    assert asked == PLACES
    assert [path.name for path in tmp_path.rglob("*")] == ["reports", journal.path.name]


def test_xml_that_cannot_be_written_goes_elsewhere(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = junit_writer.write_from_journal

    def refuse(path: Path) -> Path:
        if path == journal.path:
            raise FULL
        return write(path)

    monkeypatch.setattr(junit_writer, "write_from_journal", refuse)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))

    found, complaint = fallback.write(journal)

    assert found is not None
    assert found.parent.parent == tmp_path
    assert str(FULL) in complaint
