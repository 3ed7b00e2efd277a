"""The side file and the XML, without a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from junitparser import xunit2 as junitparser

from distparity import junit
from distparity.journal import Journal, paths
from distparity.outcome import Outcome, Status

HEADER = {"cell": {"torch": "2.13", "device": "cpu"}, "facts": {"torch": "2.13.0"}}

OUTCOMES = {
    "a/passed": Outcome(Status.PASSED, "ratio 0.1", facts={"ratio": 0.1}),
    "a/failed": Outcome(Status.FAILED, "step 0", "the whole story"),
    "a/crash": Outcome(Status.CRASH, "rank 1 killed by SIGKILL"),
    "a/timeout": Outcome(Status.TIMEOUT, "rank 0: no answer"),
    "a/error": Outcome(Status.ERROR, "the oracle: ..."),
    "a/unsupported": Outcome(Status.NOT_SUPPORTED, "fully_shard on cpu: torch says no"),
    "a/absent": Outcome(Status.NOT_AVAILABLE, "cuda: device_count() is 1"),
}


@pytest.fixture
def cell(tmp_path: Path) -> junitparser.TestSuite:
    path, xml = paths(tmp_path, "2.13", "cpu")
    journal = Journal(path, xml, {**HEADER, "cases": [*OUTCOMES, "b/never"]})
    for case, outcome in OUTCOMES.items():
        journal.add(case, outcome)
    journal.end("interrupted")
    (suite,) = junitparser.JUnitXml.fromfile(str(junit.write_from_journal(path)))
    return suite


@pytest.mark.parametrize(
    ("name", "tag", "message"),
    [
        ("failed", "failure", "failed: step 0"),
        ("crash", "failure", "crash: rank 1 killed by SIGKILL"),
        ("timeout", "failure", "timeout: rank 0: no answer"),
        ("error", "error", "error: the oracle: ..."),
        ("unsupported", "skipped", "not supported: fully_shard on cpu: torch says no"),
        ("absent", "skipped", "not available: cuda: device_count() is 1"),
        ("never", "error", "missing: no result: interrupted"),
    ],
)
def test_reason_stands_as_message_and_as_text(
    cell: junitparser.TestSuite, name: str, tag: str, message: str
) -> None:
    (case,) = (case for case in cell if case.name == name)
    (result,) = case.result

    assert result._tag == tag
    assert result.message == message
    assert result.text.startswith(message)


def test_counts_are_those_of_the_cases(cell: junitparser.TestSuite) -> None:
    assert (cell.tests, cell.failures, cell.errors, cell.skipped) == (8, 3, 2, 2)


def test_case_that_passed_has_no_result_element(cell: junitparser.TestSuite) -> None:
    (case,) = (case for case in cell if case.name == "passed")

    assert case.classname == "distparity.a"
    assert case.result == []
    assert {p.name: p.value for p in case.properties()} == {"status": "passed", "ratio": "0.1"}


@pytest.mark.parametrize(
    "text",
    [
        "<failure/> & ]]> \"quotes\" 'and' <!-- more -->",
        "\x00\x1b[31mred\x1b[0m\x07 \ufffe \ud800",
        "Grüße, 数値, 🦆",
        "line\nline\r\n\ttab",
    ],
    ids=["markup", "control", "unicode", "white space"],
)
def test_any_text_makes_a_readable_file(tmp_path: Path, text: str) -> None:
    xml = junit.write_broken_cell(tmp_path, "nightly", "cpu", text, text, {"fact": text})

    (suite,) = junitparser.JUnitXml.fromfile(str(xml))
    (case,) = suite
    kept = [c for c in text if c.isprintable() and c.isascii()]
    assert [c for c in case.result[0].text if c in kept]
    assert xml.name == "junit-nightly-cpu.xml"


@pytest.mark.parametrize(
    ("torch", "device", "name"),
    [
        ("2.13", "cpu", "junit-2.13-cpu"),
        ("2.13.0+cpu", "xpu", "junit-2.13.0+cpu-xpu"),
        ("../../etc/x", "a/b", "junit-_.._etc_x-a_b"),
        ("", "..", "junit-_-_"),
    ],
)
def test_file_name_stays_in_its_folder(tmp_path: Path, torch: str, device: str, name: str) -> None:
    side, xml = paths(tmp_path, torch, device)

    assert side.parent == xml.parent == tmp_path
    assert (side.stem, xml.stem) == (name, name)


def test_new_run_removes_the_old_cell(tmp_path: Path) -> None:
    path, xml = paths(tmp_path, "2.13", "cpu")
    xml.write_text("a green cell of yesterday")

    Journal(path, xml, {**HEADER, "cases": []}).end("finished")

    assert not xml.exists()


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"case": "a/b"}'])
def test_what_is_no_side_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "junit-x.jsonl"
    path.write_text(text)

    with pytest.raises(ValueError, match="is no side file"):
        junit.write_from_journal(path)


def test_side_file_is_lines_of_json(tmp_path: Path) -> None:
    path, xml = paths(tmp_path, "2.13", "cpu")
    journal = Journal(path, xml, {**HEADER, "cases": ["a/passed"]})
    journal.add("a/passed", OUTCOMES["a/passed"])
    journal.end("finished")

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["header", "case", "end"]
