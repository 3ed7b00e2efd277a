"""The side file: one writer, whatever is damaged in it, and what never takes its place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distparity.core.outcome import Outcome, Status
from distparity.core.redact import Redactor
from distparity.core.version import __version__
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


def test_a_run_that_goes_on_has_its_results_and_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun at 100 s and stopped at 110; gone on with from 200 to 205, and from 300 to 310."""
    now = 100.0
    monkeypatch.setattr(time, "time", lambda: now)
    path, xml = paths(tmp_path, "2.13", "cpu")
    cases = ["a/b", "a/c", "a/d"]
    first = Journal(path, xml, {**HEADER, "facts": {}, "cases": cases})
    now = 110.0
    first.add("a/b", PASSED)
    first.end("interrupted")
    whole = path.read_text()

    for begin, case, end, so_far in (
        (200.0, "a/c", "interrupted", 1),
        (300.0, "a/d", "finished", 2),
    ):
        now = begin
        journal = Journal(path, xml, {}, {"results": so_far})
        before = read(path)
        now = begin + 5 * so_far
        journal.add(case, PASSED)
        journal.end(end)
        journal.save(tmp_path / "saved")
        assert before.ended is None
        assert path.read_text().startswith(whole)
        assert (tmp_path / "saved").read_text() == path.read_text()

    found = read(path)
    assert (found.ended, found.seconds) == ("finished", 25.0)
    assert list(found.done) == list(found.outcomes) == cases
    assert found.done["a/c"] == PASSED
    assert found.header["facts"]["resumed"] == "after 1 of 3 results, after 2 of 3 results"


def test_a_share_has_files_of_its_own(tmp_path: Path) -> None:
    files = [place(tmp_path, "2.13", "cpu", part=False, share=share) for share in ("", "1/4")]

    assert [file.name for pair in files for file in pair] == [
        *("junit-2.13-cpu.jsonl", "junit-2.13-cpu.xml"),
        *("junit-2.13-cpu.shard-1-of-4.jsonl", "junit-2.13-cpu.shard-1-of-4.xml"),
    ]


def test_writer_that_is_killed_leaves_the_file_free(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from typing import Any
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
    "a case without an outcome": b'{"case": "a/x"}\n',
    "an end without a time": b'{"end": "finished"}\n',
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


# -- what is read back -----------------------------------------------------------------------------


def side_file(folder: Path, header: dict[str, object], *lines: dict[str, object]) -> Path:
    path = folder / "junit-x.jsonl"
    whole = {**HEADER, "cases": ["a/x", "a/y"], "started": 10.0, **header}
    path.write_text("".join(json.dumps(one) + "\n" for one in ({"header": whole}, *lines)))
    return path


def ended(reason: str = "finished", at: float = 12.5, **more: object) -> dict[str, object]:
    return {"end": reason, "at": at, **more}


def of_case(case: str, **facts: object) -> dict[str, object]:
    return {"case": case, "outcome": Outcome(Status.PASSED, facts=facts).to_json(), "at": 11.0}


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        pytest.param([], "the process that ran the suite died", id="no end"),
        pytest.param([ended("interrupted")], "interrupted", id="an end"),
    ],
)
def test_a_case_without_a_result_says_why(
    tmp_path: Path, lines: list[dict[str, object]], why: str
) -> None:
    record = read(side_file(tmp_path, {}, of_case("a/y"), *lines))

    assert record.outcomes == {
        "a/x": Outcome(Status.MISSING, f"no result: {why}"),
        "a/y": Outcome(Status.PASSED),
    }
    assert record.ended == (why if lines else None)


def test_a_case_has_the_facts_that_were_known_before_it_ran(tmp_path: Path) -> None:
    about = {"a/x": {"scenario": "a", "seed": 0}, "a/y": {"scenario": "b"}}
    record = read(side_file(tmp_path, {"about": about}, of_case("a/x", seed=1, ratio=0.5)))

    assert record.outcomes["a/x"].facts == {"scenario": "a", "seed": 1, "ratio": 0.5}
    assert record.outcomes["a/y"].facts == {"scenario": "b"}


def test_a_run_has_the_facts_that_were_known_in_the_end(tmp_path: Path) -> None:
    header: dict[str, object] = {"facts": {"torch": "2.13", "cores": 2}}
    record = read(side_file(tmp_path, header, ended(facts={"cores": 4, "worlds": 3})))

    assert record.header["facts"] == {"torch": "2.13", "cores": 4, "worlds": 3}


def test_a_run_that_has_no_facts(tmp_path: Path) -> None:
    path = tmp_path / "junit-x.jsonl"
    header = {"cell": HEADER["cell"], "cases": [], "started": 1}
    lines = [{"header": header}, ended(facts={"cores": 4})]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))

    assert read(path).header["facts"] == {"cores": 4}


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    path = side_file(tmp_path, {"facts": {"host": "?"}}, of_case("a/x", said="?"))
    path.write_bytes(path.read_bytes().replace(b"?", b"\xff"))

    record = read(path)

    assert record.header["facts"] == {"host": "\ufffd"}
    assert record.outcomes["a/x"].facts == {"said": "\ufffd"}


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        pytest.param([ended(at=12.5)], 2.5, id="to the end"),
        pytest.param([ended(at=9.0)], 0.0, id="never less than none"),
        pytest.param([of_case("a/x")], 7.0, id="to the last line, where there is no end"),
    ],
)
def test_how_long_a_run_took(
    tmp_path: Path, lines: list[dict[str, object]], seconds: float
) -> None:
    path = side_file(tmp_path, {}, *lines)
    os.utime(path, (0.0, 17.0))

    assert read(path).seconds == seconds


@pytest.mark.parametrize("schema", [2, "1", None])
def test_another_schema_is_refused_in_words(tmp_path: Path, schema: object) -> None:
    path = side_file(tmp_path, {"schema": schema})

    with pytest.raises(ValueError, match="schema") as refused:
        read(path)

    assert str(refused.value) == (
        f"{path} has schema {schema!r}; distparity {__version__} reads schema 1"
    )


@pytest.mark.parametrize("header", [{}, {"schema": 1}], ids=["before schemas", "the first"])
def test_the_first_schema_is_read(tmp_path: Path, header: dict[str, object]) -> None:
    assert list(read(side_file(tmp_path, header)).outcomes) == ["a/x", "a/y"]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"about": {"a/y": 3}}, id="about a case, a number"),
        pytest.param({"about": 3}, id="about all, a number"),
        pytest.param({"cell": {"torch": "2.13"}}, id="no device"),
        pytest.param({"cell": {"torch": 2.13, "device": "cpu"}}, id="a torch that is a number"),
        pytest.param({"cell": {"torch": "2.13", "device": 0}}, id="a device that is a number"),
        pytest.param({"cases": ["a/x", 3]}, id="a case that is a number"),
    ],
)
def test_a_header_that_lacks_something_is_none(tmp_path: Path, header: dict[str, object]) -> None:
    path = side_file(tmp_path, header)

    with pytest.raises(ValueError, match="side file") as refused:
        read(path)

    assert str(refused.value) == f"{path} is not a side file of distparity: it has no header"


def test_what_is_written_first(tmp_path: Path) -> None:
    before = time.time()
    journal = Journal(tmp_path / "x.jsonl", tmp_path / "x.xml", {**HEADER, "cases": ["a/x"]})
    journal.add("a/x", PASSED)
    after = time.time()
    journal.end("finished")

    header, case, _ = (json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines())
    started = header["header"].pop("started")
    assert header == {"header": {"schema": 1, **HEADER, "cases": ["a/x"], "pid": os.getpid()}}
    assert before <= started <= case.pop("at") <= after
    assert case == {"case": "a/x", "outcome": PASSED.to_json()}


@pytest.mark.parametrize(
    ("facts", "written"),
    [pytest.param(None, {}, id="none"), pytest.param({"cores": 2}, {"cores": 2}, id="some")],
)
def test_what_is_written_last(
    tmp_path: Path, facts: dict[str, object] | None, written: dict[str, object]
) -> None:
    before = time.time()
    journal = Journal(tmp_path / "x.jsonl", tmp_path / "x.xml", HEADER)
    journal.end("interrupted", facts)

    end = json.loads((tmp_path / "x.jsonl").read_text().splitlines()[-1])
    assert before <= end.pop("at") <= time.time()
    assert end == {"end": "interrupted", "facts": written}
    assert (journal.path, journal.xml) == (tmp_path / "x.jsonl", tmp_path / "x.xml")


class FullDisk:
    """A file that takes so many lines."""

    def __init__(self, file: Any, lines: int) -> None:
        self._file = file
        self._lines = lines

    def write(self, line: str) -> None:
        self._lines -= 1
        if self._lines < 0:
            raise OSError(28, "No space left on device")
        self._file.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_what_a_full_disk_does_not_take_is_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jsonl", tmp_path / "x.xml", {**HEADER, "cases": ["a/x", "a/y"]})
    assert journal.error is None
    journal._file = FullDisk(journal._file, 1)
    journal.add("a/x", PASSED)
    journal.add("a/y", Outcome(Status.FAILED, "off by 1 µm"))
    assert str(journal.error) == "[Errno 28] No space left on device"
    journal._file._lines = 9
    journal.end("finished")

    journal.save(tmp_path / "whole.jsonl")

    there, whole = read(tmp_path / "x.jsonl"), read(tmp_path / "whole.jsonl")
    # After a line that is lost, no other is written.
    assert (there.ended, whole.ended) == (None, "finished")
    assert whole.outcomes == {"a/x": PASSED, "a/y": Outcome(Status.FAILED, "off by 1 µm")}


def test_what_a_damaged_file_has_is_kept_as_it_is(tmp_path: Path) -> None:
    """A run goes on after it, and its results are then written elsewhere."""
    path, xml = tmp_path / "x.jsonl", tmp_path / "x.xml"
    Journal(path, xml, {**HEADER, "cases": ["a/x"]}).end("interrupted")
    path.write_bytes(path.read_bytes() + b'{"case": "a/x\xff')
    journal = Journal(path, xml, {}, {"results": 0})
    journal.add("a/x", PASSED)
    journal.end("finished")

    journal.save(tmp_path / "whole.jsonl")

    assert (tmp_path / "whole.jsonl").read_bytes() == path.read_bytes()
    assert read(path).outcomes == {"a/x": PASSED}


def test_a_disk_that_is_gone_in_the_end_ends_no_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jsonl", tmp_path / "x.xml", HEADER)
    file = journal._file

    class Gone(FullDisk):
        def close(self) -> None:
            file.close()
            raise OSError(5, "Input/output error")

    journal._file = Gone(file, 9)
    journal.end("finished")

    assert json.loads((tmp_path / "x.jsonl").read_text().splitlines()[-1])["end"] == "finished"


@pytest.mark.parametrize(
    "line",
    ["", "no JSON", "{}", "[]", '{"header": 3}', '{"header": {}}', "[" * 100_000],
    ids=["nothing", "no JSON", "no header", "a list", "a number", "no process", "deep"],
)
def test_the_one_who_writes_a_file_without_a_header_is_not_known(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(line)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Taken) as taken:
            Journal(path, tmp_path / "x.xml", HEADER)

    assert str(taken.value) == f"{path} is being written by another run"


def test_the_one_who_writes_a_damaged_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"header": {"pid": 17, "name": "\xff"}}\n')
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Taken, match=r"another run, process 17$"):
            Journal(path, tmp_path / "x.xml", HEADER)


def test_the_one_who_writes_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    first = Journal(path, tmp_path / "x.xml", HEADER)
    with pytest.raises(Taken) as taken:
        Journal(path, tmp_path / "x.xml", HEADER)

    assert str(taken.value) == f"{path} is being written by another run, process {os.getpid()}"
    assert read_header(path)["pid"] == os.getpid()
    first.end("finished")


def read_header(path: Path) -> Any:
    return json.loads(path.read_text().splitlines()[0])["header"]


def test_on_a_file_system_without_locks_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    Journal(tmp_path / "x.jsonl", tmp_path / "x.xml", {**HEADER, "cases": []}).end("finished")

    assert read(tmp_path / "x.jsonl").ended == "finished"


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock = tmp_path / "x.jsonl", fcntl.flock
    path.write_text("")

    def flock(file: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        path.unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    Journal(path, tmp_path / "x.xml", {**HEADER, "cases": []}).end("finished")

    assert read(path).ended == "finished"


LONG = "x" * 120
FILE_NAMES = {
    "as it is": ("2.13.0+cpu", "2.13.0+cpu"),
    "as long as may be": ("x" * 100, "x" * 100),
    "of other signs": ("a/b c:d-e_f", "a_b_c_d-e_f"),
    "of letters that are no ASCII": ("größe", "größe"),
    "hidden": ("..x.", "x."),
    "with a capital": ("Xpu", "Xpu"),
    "nothing": ("", "_"),
    "too long": (LONG, f"{'x' * 91}-{hashlib.sha256(LONG.encode()).hexdigest()[:8]}"),
    "too long in bytes": (
        "ß" * 51,
        f"{'ß' * 45}-{hashlib.sha256(('ß' * 51).encode()).hexdigest()[:8]}",
    ),
    "too long, and no UTF-8": (
        LONG + "\udcff",
        f"{'x' * 91}-{hashlib.sha256(LONG.encode() + bytes([0xFF])).hexdigest()[:8]}",
    ),
}


@pytest.mark.parametrize(("name", "safe"), FILE_NAMES.values(), ids=list(FILE_NAMES))
def test_a_name_in_a_file_s_name(name: str, safe: str) -> None:
    assert paths(Path("f"), name, "cpu")[0] == Path("f", f"junit-{safe}-cpu.jsonl")
    assert paths(Path("f"), "2.13", name)[1] == Path("f", f"junit-2.13-{safe}.xml")


@pytest.mark.parametrize(
    ("before", "beside"),
    [
        pytest.param(None, False, id="nothing"),
        pytest.param({"cases": ["a/x"], "part": False}, True, id="a whole one"),
        pytest.param({"cases": ["a/x"], "part": True}, False, id="a part"),
        pytest.param({"cases": ["cell/start"]}, False, id="a cell that did not begin"),
        pytest.param({"cases": ["cell/start", "a/x"]}, True, id="one with such a case"),
        pytest.param({"part": False}, True, id="one that is damaged"),
    ],
)
def test_where_a_part_goes(tmp_path: Path, before: dict[str, object] | None, beside: bool) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    if before is not None:
        paths(folder, "2.13", "cpu")[0].write_text(json.dumps({"header": before}) + "\n")

    own, other = paths(folder, "2.13", "cpu"), paths(tmp_path / "reports-part", "2.13", "cpu")

    assert place(folder, "2.13", "cpu", part=True) == (other if beside else own)
    assert place(folder, "2.13", "cpu", part=False) == own


def test_a_part_whose_header_is_damaged_in_a_text_is_a_part(tmp_path: Path) -> None:
    header = json.dumps({"header": {"cases": ["a/x"], "part": True, "name": "?"}}).encode()
    paths(tmp_path, "2.13", "cpu")[0].write_bytes(header.replace(b"?", b"\xff") + b"\n")

    assert place(tmp_path, "2.13", "cpu", part=True)[0].parent == tmp_path


def test_an_xml_file_without_a_side_file_is_a_whole_one(tmp_path: Path) -> None:
    side, xml = paths(tmp_path / "reports", "2.13", "cpu")
    xml.parent.mkdir()
    xml.write_text("")

    assert place(tmp_path / "reports", "2.13", "cpu", part=True)[0].parent.name == "reports-part"
    assert not side.exists()
