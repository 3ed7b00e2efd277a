"""The side file and the XML, without a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from junitparser import xunit2 as junitparser

from distparity.core.outcome import Outcome, Status
from distparity.results import junit_writer
from distparity.results.journal import Journal, paths

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
    (suite,) = junitparser.JUnitXml.fromfile(str(junit_writer.write_from_journal(path)))
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
    xml = junit_writer.write_broken_cell(tmp_path, "nightly", "cpu", text, text, {"fact": text})

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

    with pytest.raises(ValueError, match="is not a side file"):
        junit_writer.write_from_journal(path)


def test_side_file_is_lines_of_json(tmp_path: Path) -> None:
    path, xml = paths(tmp_path, "2.13", "cpu")
    journal = Journal(path, xml, {**HEADER, "cases": ["a/passed"]})
    journal.add("a/passed", OUTCOMES["a/passed"])
    journal.end("finished")

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["header", "case", "end"]


# -- what consumers read, and refuse ---------------------------------------------------------------


def _cell_of(folder: Path, number: int, outcome: Outcome) -> Path:
    path, xml = paths(folder, "2.13", "cpu")
    cases = [f"scenario_{n % 100}/strategy_{n // 100}-ws2-float32" for n in range(number)]
    journal = Journal(path, xml, {**HEADER, "cases": cases})
    for case in cases:
        journal.add(case, outcome)
    journal.end("finished")
    return junit_writer.write_from_journal(path)


#: As many facts as a case has.
FULL = {
    "scenario": "s",
    "strategy": "ddp",
    "world_size": 2,
    "dtype": "float32",
    "ratio": 1.5,
    "largest_error": 1e-3,
    "seconds_in_ranks": 0.1,
    "diagnosis": "x" * 80,
    "rerun": "y" * 120,
    **{f"fact_{number}": "z" * 40 for number in range(12)},
}


@pytest.mark.parametrize(
    ("number", "detail"),
    [(2000, "a line of an account\n" * 500), (3, '"' * 5_000_000), (2000, '&"\x00' * 3000)],
    ids=["many", "large", "markup"],
)
def test_file_is_within_what_gitlab_takes(tmp_path: Path, number: int, detail: str) -> None:
    xml = _cell_of(tmp_path, number, Outcome(Status.FAILED, "off by 1", detail, FULL))

    assert xml.stat().st_size < 30_000_000
    texts = [element.text or "" for element in ElementTree.parse(xml).iter("failure")]
    assert len(texts) == number
    assert max(len(text) for text in texts) < 10_000_000


def test_objects_are_within_what_gitlab_takes(tmp_path: Path) -> None:
    """It counts every element and attribute of 2,000 cases, and gives up at 250,000."""
    xml = _cell_of(tmp_path, 2000, Outcome(Status.FAILED, "off by 1", "detail", FULL))

    assert sum(1 + len(element.attrib) for element in ElementTree.parse(xml).iter()) < 250_000


def test_account_that_is_cut_says_so_and_keeps_both_ends(tmp_path: Path) -> None:
    detail = f"the beginning\n{'x' * junit_writer.LARGEST_ACCOUNT}\nthe end"
    xml = _cell_of(tmp_path, 1, Outcome(Status.FAILED, "off by 1", detail))

    (element,) = ElementTree.parse(xml).iter("failure")
    assert element.text is not None
    assert element.text.startswith("failed: off by 1\nthe beginning")
    assert element.text.endswith("the end")
    assert re.search(r"\[[\d,]+ characters omitted here; the side file has them\]", element.text)
    assert (
        detail
        in json.loads((xml.with_suffix(".jsonl")).read_text().splitlines()[1])["outcome"]["detail"]
    )


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.PASSED])
def test_whatever_did_not_pass_has_one_element_with_its_reason_twice(
    tmp_path: Path, status: Status
) -> None:
    """Azure reads the message only, GitLab the text only, and Jenkins and dorny the first element."""
    xml = _cell_of(tmp_path, 1, Outcome(status, "the reason", "the account"))

    (case,) = ElementTree.parse(xml).iter("testcase")
    (result,) = [child for child in case if child.tag != "properties"]
    assert result.tag in ("failure", "error", "skipped")
    assert result.get("message") == f"{status.value}: the reason"
    assert result.text == f"{status.value}: the reason\nthe account"
    assert result.get("type") == f"distparity.{status.value}"


def test_every_case_has_what_all_consumers_key_by(tmp_path: Path) -> None:
    """EnricoMi drops a case without classname and name; Jenkins and GitLab want a time."""
    xml = _cell_of(tmp_path, 5, Outcome(Status.PASSED, facts={"seconds_in_ranks": 0.25}))
    (suite,) = ElementTree.parse(xml).getroot()

    keys = [(case.get("classname"), case.get("name")) for case in suite.iter("testcase")]
    assert len(set(keys)) == 5
    assert all(classname and name for classname, name in keys)
    assert {case.get("time") for case in suite.iter("testcase")} == {"0.2500"}
    assert {
        "name",
        "tests",
        "failures",
        "errors",
        "skipped",
        "time",
        "timestamp",
        "hostname",
    } == set(suite.attrib)
