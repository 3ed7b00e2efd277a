"""The side file: one writer, whatever is damaged in it, and what never takes its place."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distparity.core.outcome import Outcome, Status
from distparity.core.redact import Redactor
from distparity.expectations.search import TooSlow, search
from distparity.results import junit_writer
from distparity.results.journal import Journal, Taken, paths, place, read

HEADER = {"cell": {"torch": "2.13", "device": "cpu"}, "facts": {}}
PASSED = Outcome(Status.PASSED, "ratio 0.1")


def write(folder: Path, *cases: str, part: bool = False) -> Path:
    """A cell's side file and XML in which every case passed."""
    path, xml = place(folder, "2.13", "cpu", part=part)
    path.parent.mkdir(exist_ok=True, parents=True)
    journal = Journal(path, xml, {**HEADER, "cases": list(cases), "part": part})
    for case in cases:
        journal.add(case, PASSED)
    journal.end("finished")
    return junit_writer.write_from_journal(path)


def test_second_writer_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    path, xml = paths(tmp_path, "2.13", "cpu")
    first = Journal(path, xml, {**HEADER, "cases": ["a/b"]})
    first.add("a/b", PASSED)

    with pytest.raises(Taken, match=f"another run, process {os.getpid()}"):
        Journal(path, xml, {**HEADER, "cases": []})
    with pytest.raises(Taken):
        junit_writer.write_broken_cell(tmp_path, "2.13", "cpu", "no", "", {})

    first.end("finished")
    assert read(path).outcomes["a/b"].status is Status.PASSED
    Journal(path, xml, {**HEADER, "cases": []}).end("finished")


def test_writer_that_is_killed_leaves_the_file_free(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from distparity.results.journal import Journal
Journal(Path({str(tmp_path / "x.jsonl")!r}), Path("none"), {{"cases": []}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)

    Journal(tmp_path / "x.jsonl", tmp_path / "x.xml", {"cases": []}).end("finished")


WHOLE = ["a/x", "a/y"]


@pytest.mark.parametrize("cases", [["a/x"], [], ["a/other"]], ids=["one", "none", "another"])
def test_part_of_a_run_leaves_the_whole_as_it_was(tmp_path: Path, cases: list[str]) -> None:
    whole = write(tmp_path / "reports", *WHOLE)
    before = whole.read_bytes()

    part = write(tmp_path / "reports", *cases, part=True)

    assert (whole.read_bytes(), part.parent) == (before, tmp_path / "reports-part")
    assert sorted(junit_writer.statuses(part)) == cases


@pytest.mark.parametrize("before", ["nothing", "a part", "a cell that did not begin"])
def test_part_of_a_run_is_where_it_belongs_when_it_replaces_no_whole(
    tmp_path: Path, before: str
) -> None:
    if before == "a part":
        write(tmp_path, *WHOLE, part=True)
    elif before != "nothing":
        junit_writer.write_broken_cell(tmp_path, "2.13", "cpu", "no", "", {})

    assert write(tmp_path, "a/x", part=True).parent == tmp_path


def test_whole_run_replaces_a_whole_one(tmp_path: Path) -> None:
    write(tmp_path, *WHOLE)

    assert list(junit_writer.statuses(write(tmp_path, "a/x"))) == ["a/x"]


#: What is put in the place of a case's line -> whether anything but that case is lost.
DAMAGED = {
    "a byte that is no UTF-8": b'{"case": "a/x", "outcome": {"status": "passed\xff"}}\n',
    "no JSON": b"\x00\x01\x02\n",
    "nothing": b"\n",
    "a list": b'["case"]\n',
    "a number": b"17\n",
    "deep": b"[" * 100_000 + b"\n",
    "an outcome that is a list": b'{"case": "a/x", "outcome": []}\n',
    "an outcome without facts": b'{"case": "a/x", "outcome": {"status": "passed"}}\n',
    "facts of another shape": (
        b'{"case": "a/x", "outcome": {"status": "passed", "message": 1, "detail": 2, "facts": 3}}\n'
    ),
    "an unknown status": (
        b'{"case": "a/x", "outcome": {"status": "?", "message": "", "detail": "", "facts": {}}}\n'
    ),
    "a case that is a list": b'{"case": [], "outcome": {}}\n',
    "an end of another shape": b'{"end": [], "at": "never", "facts": 3}\n',
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_damage_costs_one_line(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, *WHOLE)
    path, _ = paths(tmp_path, "2.13", "cpu")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + b"".join(lines[2:]))

    assert junit_writer.statuses(junit_writer.write_from_journal(path)) == {
        "a/x": "missing",
        "a/y": "passed",
    }


HEADERS = {
    "cases that are a number": {**HEADER, "cases": 1, "started": 0},
    "a case that is a number": {**HEADER, "cases": [1], "started": 0},
    "a cell that is a list": {"cell": [], "cases": [], "started": 0},
    "facts that are a list": {**HEADER, "facts": [], "cases": [], "started": 0},
    "no beginning": {**HEADER, "cases": []},
    "a beginning that is a word": {**HEADER, "cases": [], "started": "x"},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_header_of_another_shape_is_refused_in_words(
    tmp_path: Path, header: dict[str, object]
) -> None:
    path = tmp_path / "junit-x.jsonl"
    path.write_text(json.dumps({"header": header}))

    with pytest.raises(ValueError, match="is not a side file"):
        junit_writer.write_from_journal(path)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e308", "NaN"])
def test_number_beyond_all_bounds_is_written(tmp_path: Path, number: str) -> None:
    path = tmp_path / "junit-x.jsonl"
    outcome = Outcome(Status.PASSED, facts={"seconds_in_ranks": "SECONDS"}).to_json()
    line = json.dumps({"case": "a/x", "outcome": outcome}).replace('"SECONDS"', number)
    header = {"header": {**HEADER, "cases": ["a/x"], "started": 0}}
    path.write_text(
        f"{json.dumps(header)}\n{line}\n".replace('"started": 0', f'"started": {number}')
    )

    with contextlib.suppress(ValueError):
        assert junit_writer.statuses(junit_writer.write_from_journal(path)) == {"a/x": "passed"}


NAMES = ["multiple_forward/ddp-ws2-float32", "passed", "cpu", "2.13.0+cpu"]


@pytest.mark.parametrize("secret", ["float32", "multiple_forward", "passed", "2.13.0", NAMES[0]])
def test_name_of_a_case_is_no_secret(secret: str) -> None:
    redactor = Redactor({"MY_TOKEN": secret, "HF_TOKEN": "hunter2-hunter2"})
    redactor.spare(NAMES)

    assert redactor.all({"cases": NAMES}) == {"cases": NAMES}
    assert redactor.text(f"{secret} hunter2-hunter2") == f"{secret} [$HF_TOKEN]"


def test_search_without_end_is_ended() -> None:
    with pytest.raises(TooSlow, match="takes more than"):
        search(re.compile(r"(a+)+$"), "a" * 40 + "!")
    assert search(re.compile("a+"), "aaa")
