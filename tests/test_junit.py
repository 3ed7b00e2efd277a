"""The side file and the XML, without a run."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from xml.etree import ElementTree

import pytest
from junitparser import xunit2 as junitparser

from distparity.core.judgement import Divergence, Quantity
from distparity.core.marks import Mark
from distparity.core.outcome import Outcome, Status
from distparity.core.version import __version__
from distparity.results import junit_writer
from distparity.results.journal import Journal, paths, read

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


# -- to the letter -----------------------------------------------------------------------------------


def of_lines(folder: Path, header: dict[str, object], **outcomes: Outcome) -> Path:
    """A side file of cases ``a/<name>``, from second 10 to second 12.5 of the epoch."""
    path = folder / "junit-2.13-cpu.jsonl"
    whole = {**HEADER, "cases": [f"a/{name}" for name in outcomes], "started": 10, **header}
    lines: list[dict[str, object]] = [{"header": whole}]
    lines += [{"case": f"a/{name}", "outcome": one.to_json()} for name, one in outcomes.items()]
    lines += [{"end": "finished", "at": 12.5, "facts": {}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def suite_facts(xml: Path) -> dict[str | None, str | None]:
    """The properties of the suite itself."""
    found = ElementTree.parse(xml).iterfind("testsuite/properties/property")
    return {one.get("name"): one.get("value") for one in found}


WHOLE = """<?xml version='1.0' encoding='utf-8'?>
<testsuites name="distparity" tests="4" failures="1" errors="1" skipped="1" time="2.500">
  <testsuite name="distparity torch 2.13 cpu" tests="4" failures="1" errors="1" skipped="1" \
time="2.500" timestamp="1970-01-01T00:00:10+00:00" hostname="here">
    <properties>
      <property name="distparity.cell" value="2.13-cpu" />
      <property name="distparity.cell_torch" value="2.13" />
      <property name="distparity.device" value="cpu" />
      <property name="distparity.version" value="{version}" />
      <property name="distparity.schema" value="1" />
      <property name="distparity.torch" value="2.13.0" />
      <property name="distparity.world_sizes" value="2, 4" />
      <property name="distparity.ended" value="finished" />
    </properties>
    <testcase classname="distparity.a" name="passed" time="0.2500">
      <properties>
        <property name="status" value="passed" />
        <property name="ratio" value="0.123457" />
        <property name="seconds_in_ranks" value="0.25" />
        <property name="steps" value="3" />
      </properties>
    </testcase>
    <testcase classname="distparity.a" name="failed" time="0.0000">
      <properties>
        <property name="status" value="failed" />
        <property name="failure" value="findings" />
        <property name="first_divergence" value="{first}" />
        <property name="diverged" value="[&quot;sum&quot;]" />
        <property name="marks" value="[{mark}]" />
      </properties>
      <failure message="failed: off by 1" type="distparity.failed">failed: off by 1
the account</failure>
    </testcase>
    <testcase classname="distparity.a" name="error" time="0.0000">
      <properties>
        <property name="status" value="error" />
      </properties>
      <error message="error: none" type="distparity.error">error: none</error>
    </testcase>
    <testcase classname="distparity.a" name="absent" time="0.0000">
      <properties>
        <property name="status" value="not available" />
      </properties>
      <skipped message="not available: no cuda" type="distparity.not available">\
not available: no cuda</skipped>
    </testcase>
  </testsuite>
</testsuites>"""


def test_a_cell_s_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    first, mark = Divergence(Quantity(0, "sum", "x"), 1, "off by 1", 2.0), Mark("here", "off")
    path = of_lines(
        tmp_path,
        {"facts": {"torch": "2.13.0", "world_sizes": [2, 4]}},
        passed=Outcome(
            Status.PASSED,
            facts={"ratio": 0.12345678, "growth": [1], "seconds_in_ranks": 0.25, "steps": 3},
        ),
        failed=Outcome(
            Status.FAILED, "off by 1", "the account", {}, "findings", first, ("sum",), (mark,)
        ),
        error=Outcome(Status.ERROR, "none"),
        absent=Outcome(Status.NOT_AVAILABLE, "no cuda"),
    )

    xml = junit_writer.write_from_journal(str(path))

    assert xml == path.with_suffix(".xml")
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name, xml.name]
    escaped = [json.dumps(one.to_json()).replace('"', "&quot;") for one in (first, mark)]
    assert xml.read_text() == WHOLE.format(version=__version__, first=escaped[0], mark=escaped[1])


@pytest.mark.parametrize("address", [None, "https://example.org/x"])
def test_the_address_of_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.setattr(junit_writer, "source", lambda: address)

    xml = junit_writer.write_from_journal(of_lines(tmp_path, {}, passed=Outcome(Status.PASSED)))

    assert suite_facts(xml).get("distparity.source") == address


def test_a_cell_whose_run_died(tmp_path: Path) -> None:
    path = of_lines(tmp_path, {}, passed=Outcome(Status.PASSED))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))

    xml = junit_writer.write_from_journal(path)

    assert suite_facts(xml)["distparity.ended"] == "died"


def test_only_the_first_part_of_an_id_is_the_scenario(tmp_path: Path) -> None:
    path = of_lines(tmp_path, {}, **{"b/c": Outcome(Status.PASSED)})

    (case,) = ElementTree.parse(junit_writer.write_from_journal(path)).iter("testcase")

    assert (case.get("classname"), case.get("name")) == ("distparity.a", "b/c")


@pytest.mark.parametrize(
    ("header", "tag"),
    [({}, "failure"), ({"allow_flaky": False}, "failure"), ({"allow_flaky": True}, "skipped")],
    ids=["by default", "refused", "allowed"],
)
def test_a_flaky_case(tmp_path: Path, header: dict[str, object], tag: str) -> None:
    flaky, failed = Outcome(Status.FLAKY, "twice"), Outcome(Status.FAILED, "off")
    root = ElementTree.parse(
        junit_writer.write_from_journal(of_lines(tmp_path, header, flaky=flaky, failed=failed))
    ).getroot()

    assert [child.tag for child in next(root.iter("testcase"))] == ["properties", tag]
    assert (root.get("failures"), root.get("skipped")) == (
        ("1", "1") if tag == "skipped" else ("2", "0")
    )


@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        (True, 1.0),
        (0, 0.0),
        (-0.0, 0.0),
        (2, 2.0),
        (-1, 0.0),
        (1e11, 0.0),
        (9e10, 9e10),
        ("3", 0.0),
        (None, 0.0),
    ],
)
def test_a_number_of_seconds(number: object, seconds: float) -> None:
    assert str(junit_writer._seconds(number)) == str(seconds)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([2, 4], "2, 4"),
        ((2.5, "x"), "2.5, x"),
        (0.12345678, "0.123457"),
        (1e-9, "1e-09"),
        (12345678, "12345678"),
        (None, "None"),
        (True, "True"),
        ({"SUM": "a", "MIN": 2}, "SUM: a; MIN: 2"),
    ],
    ids=str,
)
def test_a_value_as_text(value: object, text: str) -> None:
    assert junit_writer._plain(value) == text


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("x" * 10, "x" * 10),
        ("abcdefghijk", "abcde\n[1 characters omitted here; the side file has them]\nghijk"),
        (
            "abcde" + "-" * 1000 + "vwxyz",
            "abcde\n[1,000 characters omitted here; the side file has them]\nvwxyz",
        ),
    ],
    ids=["short", "one more", "long"],
)
def test_a_text_that_is_cut(text: str, cut: str) -> None:
    assert junit_writer._cut(text, 10) == cut


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a\tb\nc\rd", "a\tb\nc\rd"),
        ("\x00\x1b[31m", "\\x00\\x1b[31m"),
        ("\ud800\ufffe", "\\xd800\\xfffe"),
        ("\ud7ff\ue000\ufffd🦆", "\ud7ff\ue000\ufffd🦆"),
    ],
    ids=["white space", "control", "no characters", "the last ones that are"],
)
def test_what_xml_cannot_hold_is_spelled_out(text: str, plain: str) -> None:
    assert junit_writer._text(text) == plain


@pytest.mark.parametrize("cases", [0, 1, 40], ids=["none", "one", "forty"])
def test_accounts_share_the_file(tmp_path: Path, cases: int) -> None:
    outcomes = {f"n{n}": Outcome(Status.FAILED, "off", "x" * 250_000) for n in range(cases)}
    passed = {f"p{n}": Outcome(Status.PASSED) for n in range(3)}
    xml = junit_writer.write_from_journal(of_lines(tmp_path, {}, **outcomes, **passed))

    texts = [element.text or "" for element in ElementTree.parse(xml).iter("failure")]
    gap = len("\n[150,011 characters omitted here; the side file has them]\n")
    most = {0: 0, 1: 200_000, 40: 100_000}[cases]
    assert [len(text) for text in texts] == [most + gap - (cases == 1)] * cases


def test_a_single_account_has_all_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(junit_writer, "ACCOUNTS", 100)
    path = of_lines(tmp_path, {}, failed=Outcome(Status.FAILED, "off", "x" * 80))

    (element,) = ElementTree.parse(junit_writer.write_from_journal(path)).iter("failure")

    assert element.text == "failed: off\n" + "x" * 80


def test_a_message_is_cut_as_well(tmp_path: Path) -> None:
    path = of_lines(tmp_path, {}, failed=Outcome(Status.FAILED, "x" * 5000))
    (element,) = ElementTree.parse(junit_writer.write_from_journal(path)).iter("failure")

    message = element.get("message") or ""
    assert message.startswith("failed: " + "x" * 1992 + "\n[1,008 characters")
    assert message.endswith("\n" + "x" * 2000)


def test_statuses_of_a_file_of_others(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    path.write_text(
        '<testsuite><testcase classname="distparity.a" name="x"/><testcase classname="b.distparity." '
        'name="y"><properties><property name="other" value="1"/></properties></testcase></testsuite>'
    )

    assert junit_writer.statuses(path) == {"a/x": "none", "b.distparity./y": "none"}


def test_a_cell_that_did_not_begin(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    facts = {"torch": "torch==2.13", "python": "3.11"}

    xml = junit_writer.write_broken_cell(folder, "2.13", "cpu", "no torch", "the log", facts)

    assert xml == folder / "junit-2.13-cpu.xml"
    record = read(xml.with_suffix(".jsonl"))
    assert record.ended == "finished"
    assert record.outcomes == {"cell/start": Outcome(Status.ERROR, "no torch", "the log")}
    assert record.header["cell"] == {"torch": "2.13", "device": "cpu"}
    assert record.header["facts"] == facts
    assert junit_writer.statuses(xml) == {"cell/start": "error"}
    # There may be one already.
    assert junit_writer.write_broken_cell(folder, "2.13", "cpu", "no", "", {}) == xml


@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_a_part_that_did_not_begin_leaves_a_whole_report(tmp_path: Path, part: bool) -> None:
    whole = of_lines(tmp_path, {}, passed=Outcome(Status.PASSED))

    xml = junit_writer.write_broken_cell(tmp_path, "2.13", "cpu", "no", "", {}, part=part)

    assert list(read(whole).outcomes) == ["a/passed" if part else "cell/start"]
    assert (xml.parent == tmp_path) is not part
