"""The report without a browser: what it reads, what it refuses, and what it writes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cells
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distparity import cli
from distparity.core.outcome import Outcome, Status
from distparity.core.statuses import BY_NAME, STATUSES
from distparity.report import Refused, history, html, markdown, slower, write
from distparity.report import data as as_json
from distparity.report.model import Report, shorten
from distparity.report.read import LARGEST_DETAIL, files, read
from distparity.results import journal, junit_writer

D3 = Path(html.__file__).parent / "page" / "d3"
CASE = "a/ddp-ws2-float32"
PASSED = {CASE: cells.PASSED}
FOUND = {"ratio": 0.25, "diagnosis": "summed, not averaged"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>`|</script><!--"


def page_data(text: str) -> Any:
    """What the page's script is given."""
    start = text.index('id="data">') + len('id="data">')
    return json.loads(text[start : text.index("</script>", start)])


def halves(name: str) -> tuple[str, str]:
    torch, _, device = name.partition("-")
    return torch, device


def report(*paths: Path) -> Report:
    return Report.of(column for path in paths for column in read(path))


# -- what it reads -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", Status, ids=lambda status: status.name.lower())
def test_every_outcome_of_a_run_comes_through(tmp_path: Path, status: Status) -> None:
    path, xml = journal.paths(tmp_path, "2.13", "cpu")
    about = {"strategy": "ddp", "world_size": 2, "dtype": "float32", "rerun": "distparity run"}
    header = {"cell": {"torch": "2.13", "device": "cpu"}, "facts": {"torch": "2.13.0"}}
    side = journal.Journal(path, xml, {**header, "cases": [CASE], "about": {CASE: about}})
    if status is not Status.MISSING:
        side.add(CASE, Outcome(status, "one line", "one line\nthe account", FOUND))
    side.end("interrupted")
    (column,) = read(junit_writer.write_from_journal(path))
    ((case, result),) = column.results.items()

    assert (case.id, case.strategy, case.world_size, case.dtype) == (CASE, "ddp", 2, "float32")
    assert (result.status, result.rerun) == (status.value, "distparity run")
    if status is Status.MISSING:
        assert (result.message, result.ratio) == ("no result: interrupted", None)
    else:
        told = ("", "") if status is Status.PASSED else ("one line", "the account")
        assert (result.message, result.detail) == told
        assert (result.ratio, result.diagnosis) == (0.25, "summed, not averaged")


#: Whatever a case may bring with it.
FACTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "ratio": st.floats(0, 1) | st.just("0"),
        "largest_error": st.floats(0) | st.sampled_from(["inf", "nan"]),
        "seconds_in_ranks": st.floats(0, 1e6),
        "diagnosis": st.text(),
        "more": st.text(),
    },
)


@settings(deadline=None)
@given(
    outcomes=st.lists(st.builds(Outcome, st.sampled_from(Status), st.text(), st.text(), FACTS)),
    allow_flaky=st.booleans(),
)
def test_whatever_a_run_writes_is_read(outcomes: list[Outcome], allow_flaky: bool) -> None:
    cases = [f"a/ddp-ws{number}-float32" for number in range(len(outcomes))]
    cell = {"torch": "2.13", "device": "cpu"}
    header = {"cell": cell, "facts": {}, "cases": cases, "allow_flaky": allow_flaky}
    with tempfile.TemporaryDirectory() as folder:
        path, xml = journal.paths(Path(folder), "2.13", "cpu")
        side = journal.Journal(path, xml, header)
        for case, outcome in zip(cases, outcomes, strict=True):
            side.add(case, outcome)
        side.end("finished")
        (column,) = read(junit_writer.write_from_journal(path))

    assert [one.status for one in column.results.values()] == [one.status.value for one in outcomes]
    assert json.loads(as_json.render(Report([column], list(column.results))))


def test_cell_that_never_started_is_a_column_of_its_own(tmp_path: Path) -> None:
    facts = {"torch": "torch==2.8.0", "python": "3.14"}
    xml = junit_writer.write_broken_cell(tmp_path, "2.8", "cpu", "no wheel", "pip said so", facts)
    (column,) = read(xml)

    assert (column.name, column.torch, column.device) == ("2.8-cpu", "2.8", "cpu")
    assert str(column.version) == "2.8.0"
    assert {case.id: one.status for case, one in column.results.items()} == {"cell/start": "error"}


def test_every_status_of_a_run_has_a_drawing_and_its_tags() -> None:
    assert {status.value for status in Status} <= BY_NAME.keys()


@pytest.mark.parametrize("field", ["name", "key", "short", "mark", "meaning"])
def test_no_two_outcomes_are_drawn_alike(field: str) -> None:
    assert len({getattr(one, field) for one in STATUSES}) == len(STATUSES)


def test_only_a_pass_counts_as_good() -> None:
    assert [one.name for one in STATUSES if one.family == "good"] == ["passed"]


RATIOS = {"0.125": 0.125, "inf": math.inf, "nan": math.inf, "1e+06": 1e6, "0": 0.0}


@pytest.mark.parametrize(("text", "value"), RATIOS.items(), ids=RATIOS)
def test_ratio_is_a_number_and_nan_is_no_pass(tmp_path: Path, text: str, value: float) -> None:
    path = cells.write(tmp_path, "2.8", "cpu", {CASE: {"status": "failed", "ratio": text}})
    (result,) = read(path)[0].results.values()

    assert result.ratio == value


ORDERS = {
    "versions": (
        ["2.10-cpu", "2.4-cpu", "2.9-cpu"],
        ["2.4-cpu", "2.9-cpu", "2.10-cpu"],
    ),
    "devices": (
        ["2.4-hpu", "2.4-zpu", "2.4-cuda", "2.4-cpu"],
        ["2.4-cpu", "2.4-cuda", "2.4-hpu", "2.4-zpu"],
    ),
    "torch-first": (
        ["2.5-cpu", "2.4-cuda", "2.5-cuda", "2.4-cpu"],
        ["2.4-cpu", "2.4-cuda", "2.5-cpu", "2.5-cuda"],
    ),
    "nameless-last": (["nightly-cpu", "2.15-cpu"], ["2.15-cpu", "nightly-cpu"]),
}


@pytest.mark.parametrize(("given", "wanted"), ORDERS.values(), ids=ORDERS)
def test_columns_are_in_order(tmp_path: Path, given: list[str], wanted: list[str]) -> None:
    paths = [cells.write(tmp_path, torch, device, PASSED) for torch, device in map(halves, given)]

    assert [column.name for column in report(*paths).columns] == wanted


def test_nightly_stands_where_its_version_says(tmp_path: Path) -> None:
    nightly = cells.write(tmp_path, "nightly", "cpu", PASSED, torch="2.16.0.dev20261101+cpu")
    paths = [nightly, cells.write(tmp_path, "2.15", "cpu", PASSED)]
    paths += [cells.write(tmp_path, "local", "cpu", PASSED, torch="2.8.0a0+git0abc")]

    assert [c.torch for c in report(*paths).columns] == ["local", "2.15", "nightly"]


def test_rows_are_all_cases_of_all_cells(tmp_path: Path) -> None:
    paths = [
        cells.write(
            tmp_path, "2.4", "cpu", dict.fromkeys(["b/x-ws4-f", "b/x-ws2-f"], cells.PASSED)
        ),
        cells.write(
            tmp_path, "2.5", "cpu", dict.fromkeys(["b/x-ws10-f", "a/y-ws2-f"], cells.PASSED)
        ),
    ]

    ids = [case.id for case in report(*paths).cases]
    assert ids == ["a/y-ws2-f", "b/x-ws2-f", "b/x-ws4-f", "b/x-ws10-f"]


def test_two_runs_of_one_cell_are_one_column(tmp_path: Path) -> None:
    one = cells.write(tmp_path / "1", "2.4", "cpu", PASSED, command="run a")
    other = {"b/ddp-ws2-float32": cells.PASSED}
    two = cells.write(tmp_path / "2", "2.4", "cpu", other, command="run b")
    (column,) = report(one, two).columns

    assert [case.id for case in column.results] == [CASE, "b/ddp-ws2-float32"]
    assert column.facts["command"] == "run a | run b"
    assert column.files == [str(one), str(two)]


def test_same_run_in_two_folders_is_one_run(tmp_path: Path) -> None:
    one = cells.write(tmp_path / "1", "2.4", "cpu", PASSED, command="run a")
    other = {"b/ddp-ws2-float32": cells.PASSED}
    two = cells.write(tmp_path / "2", "2.4", "cpu", other, command="run b")
    copies = [tmp_path / name for name in ("again.xml", "and_again.xml")]
    for path, copy in zip((one, two), copies, strict=True):
        copy.write_bytes(path.read_bytes())
    (column,) = report(one, copies[0], two, *copies).columns

    assert column.seconds == 2 * 12.5
    assert column.host == "host"
    assert column.facts["command"] == "run a | run b"
    assert len(column.files) == 5


def test_parts_from_two_hosts_name_both(tmp_path: Path) -> None:
    paths = [
        cells.write(tmp_path / host, "2.4", "cpu", {f"{host}/ddp-ws2-f": cells.PASSED})
        for host in ("a", "b", "c")
    ]
    for path, host in zip(paths, ("one", "two", "one"), strict=True):
        path.write_text(path.read_text().replace('hostname="host"', f'hostname="{host}"'))
    (column,) = report(*paths).columns

    assert (column.host, column.seconds) == ("one, two", 3 * 12.5)
    assert "on one, two, 38 s" in markdown.render(report(*paths))


def test_folder_means_the_files_below_it(tmp_path: Path) -> None:
    deep = cells.write(tmp_path / "artifacts" / "cell", "2.4", "cpu", PASSED)
    (tmp_path / "junit-2.4-cpu.jsonl").write_text("{}")

    assert files([tmp_path, deep]) == [deep]


# -- what it refuses ---------------------------------------------------------------------------

BOMB = (
    '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    "<testsuites><testsuite name='&b;'/></testsuites>"
)
EXTERNAL = (
    '<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
    "<testsuites><testsuite name='b'>&a;</testsuite></testsuites>"
)
TEXTS = {
    "bomb": (BOMB, "hostile"),
    "external": (EXTERNAL, "hostile"),
    "dtd": ("<!DOCTYPE testsuites><testsuites/>", "hostile"),
    "empty": ("", "truncated, or not XML"),
    "not-xml": ("{}", "truncated, or not XML"),
    "not-junit": ("<html/>", "not JUnit XML"),
    "no-suite": ("<testsuites/>", "it has no test suite"),
    "foreign": (
        "<testsuites><testsuite name='pytest' tests='0'/></testsuites>",
        "not the XML of a cell of distparity",
    ),
    "bad-count": (
        "<testsuites><testsuite tests='many'><properties>"
        + "".join(
            f"<property name='distparity.{name}' value='x'/>"
            for name in ("cell", "cell_torch", "device")
        )
        + "</properties></testsuite></testsuites>",
        "truncated, or edited: tests=many, and 0 cases",
    ),
    "deep": (
        "<testsuites><testsuite>"
        + "<testsuite>" * 20_000
        + "</testsuite>" * 20_000
        + "</testsuite></testsuites>",
        "not the XML of a cell of distparity",
    ),
    "bad-encoding": ("<?xml version='1.0' encoding='klingon'?><a/>", "truncated, or not XML"),
}


@pytest.mark.parametrize(("text", "why"), TEXTS.values(), ids=TEXTS)
def test_file_is_refused_by_name(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "junit-2.4-cpu.xml"
    path.write_text(text)

    with pytest.raises(Refused, match=rf"^{path}: .*{why}"):
        read(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    path = cells.write(tmp_path, "2.4", "cpu", {f"a/ddp-ws{n}-f": cells.PASSED for n in range(50)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])

    with pytest.raises(Refused, match="truncated"):
        read(path)


def test_file_that_has_lost_a_case_is_refused(tmp_path: Path) -> None:
    path = cells.write(tmp_path, "2.4", "cpu", PASSED)
    path.write_text(path.read_text().replace('tests="1"', 'tests="2"'))

    with pytest.raises(Refused, match="tests=2, and 1 cases"):
        read(path)


RESULTS = {
    "unknown-status": ({"status": "splendid"}, "unknown status 'splendid'; known: failed, crash"),
    "passed-in-capitals": ({"status": "Passed"}, "unknown status 'Passed'"),
    "no-status": ({"ratio": "0.1"}, "it has no property 'status'"),
    "ratio-no-number": ({"status": "passed", "ratio": "low"}, "ratio is not a number: 'low'"),
    "ratio-below-0": ({"status": "failed", "ratio": "-5"}, "ratio is negative: '-5'"),
    "error-below-0": (
        {"status": "failed", "largest_error": "-inf"},
        "largest_error is negative: '-inf'",
    ),
    "pass-beyond-1": (
        {"status": "passed", "ratio": "1.00001"},
        "its status is passed, but its ratio is 1.00001",
    ),
    "pass-far-beyond-1": (
        {"status": "passed", "ratio": "1e6"},
        "its status is passed, but its ratio is 1e6",
    ),
    "pass-of-nan": (
        {"status": "passed", "ratio": "nan"},
        "its status is passed, but its ratio is nan",
    ),
    "pass-of-inf": (
        {"status": "passed", "ratio": "inf"},
        "its status is passed, but its ratio is inf",
    ),
}


@pytest.mark.parametrize(("result", "why"), RESULTS.values(), ids=RESULTS)
def test_result_is_refused_with_its_case(tmp_path: Path, result: Any, why: str) -> None:
    path = cells.write(tmp_path, "2.4", "cpu", {CASE: result})

    with pytest.raises(Refused, match=f"^{path}: case {CASE}: {why}"):
        read(path)


#: What is written as one status, and says that it is another.
CONTRADICTIONS = {
    "pass-with-failure": ("failed", "passed", "a <failure>"),
    "pass-with-skip": ("not run", "passed", "a <skipped>"),
    "skip-with-failure": ("failed", "not supported", "a <failure>"),
    "skip-with-nothing": ("passed", "not available", "no <skipped>"),
    "failure-with-nothing": ("passed", "failed", "no <failure>"),
    "failure-with-error": ("missing", "crash", "a <error>"),
    "error-with-failure": ("timeout", "error", "a <failure>"),
    "flaky-with-nothing": ("passed", "flaky", "no <failure>"),
    "flaky-with-error": ("error", "flaky", "a <error>"),
    "known-with-failure": ("failed", "expected failure", "a <failure>"),
}


@pytest.mark.parametrize(
    ("written", "status", "holds"), CONTRADICTIONS.values(), ids=CONTRADICTIONS
)
def test_result_that_contradicts_itself_is_refused(
    tmp_path: Path, written: str, status: str, holds: str
) -> None:
    path = cells.write(tmp_path, "2.4", "cpu", {CASE: {"status": written}})
    path.write_text(path.read_text().replace(f'value="{written}"', f'value="{status}"'))

    with pytest.raises(
        Refused, match=f"^{path}: case {CASE}: its status is {status}, but it has {holds}$"
    ):
        read(path)


def test_result_that_holds_two_is_refused(tmp_path: Path) -> None:
    path = cells.write(tmp_path, "2.4", "cpu", {CASE: {"status": "failed"}})
    path.write_text(path.read_text().replace("</testcase>", "<skipped/></testcase>"))

    with pytest.raises(
        Refused, match="its status is failed, but it has a <failure> and a <skipped>"
    ):
        read(path)


@pytest.mark.parametrize("where", ["suite", "case"])
@pytest.mark.parametrize("text", ["inf", "nan", "-1", "-inf", "1e300", "soon"])
def test_time_that_is_none_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, where: str
) -> None:
    path = cells.write(tmp_path / "in", "2.4", "cpu", PASSED)
    own = {"suite": 'time="12.5"', "case": 'time="0.05"'}[where]
    path.write_text(path.read_text().replace(own, f'time="{text}"'))
    code = cli.main(["report", str(tmp_path / "in"), "-o", str(tmp_path / "out")])

    named = f"{path}: case {CASE}" if where == "case" else str(path)
    assert code == 1
    what = "negative" if text.startswith("-") else "not a number"
    assert f"distparity: {named}: time is {what}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


CONFLICTS = {
    "torch": ({"torch": "2.4.0"}, {"torch": "2.4.1"}, "torch is '2.4.0' in one, '2.4.1'"),
    "machine": ({"device_name": "A"}, {"device_name": "B"}, "device_name is 'A' in one, 'B'"),
    "absent": ({"seed": "1"}, {}, "seed is '1' in one, 'nothing'"),
}


@pytest.mark.parametrize(("one", "other", "why"), CONFLICTS.values(), ids=CONFLICTS)
def test_two_files_of_one_cell_must_agree(
    tmp_path: Path, one: dict[str, str], other: dict[str, str], why: str
) -> None:
    first = cells.write(tmp_path / "1", "2.4", "cpu", PASSED, **one)
    second = cells.write(tmp_path / "2", "2.4", "cpu", PASSED, **other)

    with pytest.raises(Refused) as error:
        write([first, second], tmp_path / "report")
    assert f"{first} and {second} both claim the cell '2.4-cpu': {why}" in str(error.value)
    assert not (tmp_path / "report").exists()


def test_two_files_of_one_cell_with_two_results_are_refused(tmp_path: Path) -> None:
    first = cells.write(tmp_path / "1", "2.4", "cpu", PASSED)
    second = cells.write(tmp_path / "2", "2.4", "cpu", {CASE: {"status": "failed"}})

    with pytest.raises(Refused, match=f"two different results for the case '{CASE}'"):
        write([first, second], tmp_path / "report")


def test_nothing_is_written_when_the_last_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells.write(tmp_path / "in", "2.4", "cpu", PASSED)
    (tmp_path / "in" / "z.xml").write_text(BOMB)
    out = tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_text("the last report")
    code = cli.main(["report", str(tmp_path / "in"), "-o", str(out)])

    assert code == 1
    assert "z.xml: hostile XML" in capsys.readouterr().err
    assert [path.read_text() for path in out.iterdir()] == ["the last report"]


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_nothing_to_read_is_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    code = cli.main(["report", str(tmp_path / name), "-o", str(tmp_path / "out")])

    assert code == 1
    assert str(tmp_path / name) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        ("error", "2.4-cpu: nothing ran: 1 error"),
        ("missing", "2.4-cpu: nothing ran: 1 missing"),
        ("not run", "2.4-cpu: nothing ran: 1 not run"),
        ("failed", ""),
        ("expected failure", ""),
    ],
)
def test_cell_in_which_nothing_was_judged_shows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: str, complaint: str
) -> None:
    cells.write(tmp_path, "2.4", "cpu", {"cell/start": {"status": status}})
    code = cli.main(["report", str(tmp_path), "-o", str(tmp_path / "o"), "--strict", "2.4-cpu"])

    assert code == bool(complaint)
    assert complaint in capsys.readouterr().err


# -- what it writes ----------------------------------------------------------------------------


def test_three_views_of_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"status": "failed", "ratio": "inf", "message": "step 0", "detail": "growth"}
    cells.write(tmp_path, "2.4", "cpu", {CASE: failed})
    cells.write(tmp_path, "2.5", "cpu", PASSED)
    code = cli.main(["report", str(tmp_path), "-o", str(tmp_path / "out")])
    out = capsys.readouterr().out

    assert code == 0
    assert "torch 2.4 on cpu: 1 failed" in out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "index.html",
        "report.json",
        "summary.md",
    ]
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["counts"] == {"failed": 1, "passed": 1}
    assert data["cases"][0]["results"]["2.4-cpu"]["ratio"] == "inf"
    assert [column["worst"]["case"] for column in data["columns"]] == [CASE, CASE]


def test_scenarios_stand_by_family_in_every_view(tmp_path: Path) -> None:
    families = {"zeta/x-ws2-f": "calls", "alpha/x-ws2-f": "layers", "beta/x-ws2-f": "calls"}
    known = {case: {**cells.PASSED, "family": name} for case, name in families.items()}
    # One written by a version that did not say it yet.
    paths = [cells.write(tmp_path, "2.4", "cpu", dict.fromkeys(families, cells.PASSED))]
    paths += [cells.write(tmp_path, "2.5", "cpu", known)]
    found = report(*paths)

    rows = ["beta/x-ws2-f", "zeta/x-ws2-f", "alpha/x-ws2-f"]
    assert [case.id for case in found.cases] == rows
    assert [one["family"] for one in json.loads(as_json.render(found))["cases"]] == [
        *("calls", "calls", "layers")
    ]
    assert [case[0] for case in html.payload(found)["cases"]] == ["beta", "zeta", "alpha"]
    listed = markdown.render(found).partition("## Scenarios")[2].partition("Marks")[0]
    assert re.findall(r"^\| ([a-z*]+) ", listed, re.MULTILINE)[1:] == [
        *("**calls**", "beta", "zeta", "**layers**", "alpha")
    ]


def test_bound_of_an_operation_is_no_worst_ratio_beside_a_training(tmp_path: Path) -> None:
    reached = {"status": "passed", "ratio": "0.9998", "checks": "11"}
    both = cells.write(
        tmp_path, "2.4", "cpu", {"all_reduce/tensor-ws2-f": reached, CASE: cells.PASSED}
    )
    alone = cells.write(tmp_path, "2.5", "cpu", {"all_reduce/tensor-ws2-f": reached})

    worst = [column.worst for column in report(both, alone).columns]
    assert [one and one[1] for one in worst] == [0.1, 0.9998]


def test_declared_failure_is_no_worst_ratio(tmp_path: Path) -> None:
    declared = {"status": "expected failure", "ratio": "1e6", "message": "known"}
    path = cells.write(tmp_path, "2.4", "cpu", {CASE: declared, "b/ddp-ws2-f": cells.PASSED})
    (column,) = report(path).columns

    assert column.worst is not None
    assert column.worst[0].id == "b/ddp-ws2-f"


def test_case_that_a_cell_has_not_is_neither_missing_nor_passed(tmp_path: Path) -> None:
    one = cells.write(tmp_path, "2.4", "cpu", PASSED)
    other = cells.write(tmp_path, "2.5", "cpu", {"b/ddp-ws2-float32": {"status": "missing"}})
    columns = html.payload(report(one, other))["columns"]
    names = [one.name for one in STATUSES]

    assert columns[0]["status"] == [names.index("passed"), -1]
    assert columns[1]["status"] == [-1, names.index("missing")]


def test_page_reaches_for_nothing(tmp_path: Path) -> None:
    whole = html.render(report(cells.write(tmp_path, "2.4", "cpu", PASSED)))
    # It can fetch, and names its home; what the page allows itself is in its first lines.
    library = (D3 / "d3.min.js").read_text(encoding="utf-8")
    text = whole.replace(library, "")

    assert len(text) == len(whole) - len(library)

    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    # The links of expectations are for a reader to follow, and the page asks what is one.
    assert "https://" not in text.replace('startsWith("https://")', "")
    assert "default-src 'none'" in text


def test_library_is_what_was_published() -> None:
    library, readme = (D3 / name for name in ("d3.min.js", "README.md"))
    digest = hashlib.sha256(library.read_bytes()).hexdigest()

    assert digest in readme.read_text(encoding="utf-8")


def test_markup_in_the_data_is_data(tmp_path: Path) -> None:
    result = {"status": "failed", "message": HOSTILE, "detail": HOSTILE, HOSTILE: HOSTILE}
    case = f"{HOSTILE}/{HOSTILE}"
    path = cells.write(tmp_path, "2.4", "cpu", {case.replace("/", "\u2044"): result})
    found = report(path)
    text = html.render(found)
    summary = markdown.render(found)

    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img" not in text
    assert HOSTILE in page_data(text)["strings"]
    # Inside a fence everything is text.
    assert "<script>" not in re.sub(r"(?ms)^(```+)text$.*?^\1$", "", summary)


SPELLED = {"\x9b": r"\x9b", "\x7f": r"\x7f", "\u202e": r"\u202e", "\u2066": r"\u2066"}


@pytest.mark.parametrize("sign", SPELLED)
def test_what_is_not_to_be_seen_is_spelled_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    result = {"status": "failed", "message": f"m{sign}", "detail": f"d{sign}", f"f{sign}": sign}
    case = f"a{sign}/ddp{sign}-ws2-f"
    path = cells.write(tmp_path, "2.4", f"c{sign}", {case: result}, platform=f"p{sign}")
    code = cli.main(["report", str(path.parent), "-o", str(tmp_path / "out")])
    said = capsys.readouterr().out
    written = [path.read_text("utf-8") for path in (tmp_path / "out").iterdir()]

    assert code == 0
    assert f"torch 2.4 on c{SPELLED[sign]}: 1 failed" in said
    assert not any(sign in text for text in (said, *written))
    data = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    (found,) = data["cases"][0]["results"].values()
    assert (found["message"], found["detail"]) == (f"m{SPELLED[sign]}", f"d{SPELLED[sign]}")


def test_terminal_that_has_not_the_characters_of_a_name(tmp_path: Path) -> None:
    cells.write(tmp_path, "gr\u00fcn", "cpu", PASSED)
    plain = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    words = ["report", str(tmp_path), "-o", str(tmp_path / "out\u2026")]
    command = [sys.executable, "-m", "distparity", *words]
    done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
    assert rb"torch gr\xfcn on cpu: 1 passed" in done.stdout


def test_fence_in_the_summary_is_longer_than_any_in_the_text(tmp_path: Path) -> None:
    detail = "before\n````\n</details>\n````\nafter"
    result = {"status": "failed", "message": "no", "detail": detail}
    summary = markdown.render(report(cells.write(tmp_path, "2.4", "cpu", {CASE: result})))

    assert f"`````text\n{detail}\n`````\n" in summary


def test_huge_text_is_cut_and_says_so(tmp_path: Path) -> None:
    detail = "begin" + "x" * 5_000_000 + "end"
    path = cells.write(tmp_path, "2.4", "cpu", {CASE: {"status": "crash", "detail": detail}})
    (result,) = read(path)[0].results.values()

    assert len(result.detail) < LARGEST_DETAIL + 100
    assert result.detail.startswith("begin")
    assert result.detail.endswith("end")
    assert "[… 4,980,008 characters omitted; the XML file has them …]" in result.detail


def test_many_long_texts_are_cut_further(tmp_path: Path) -> None:
    results = {
        f"a/ddp-ws{n}-f": {"status": "crash", "detail": f"{n} " * 9_000} for n in range(3_000)
    }
    found = report(cells.write(tmp_path, "2.4", "cpu", results))
    text = html.render(found)

    assert len(text) < html.ROOM_FOR_TEXTS * 1.3
    assert "characters omitted" in text
    assert len(markdown.render(found).encode()) <= markdown.LIMIT


def test_summary_has_what_is_wrong_first(tmp_path: Path) -> None:
    results = {
        "a/ddp-ws2-f": cells.PASSED,
        "b/ddp-ws2-f": {"status": "missing", "message": "the run ended"},
        "c/ddp-ws2-f": {"status": "failed", "ratio": "12", "message": "step 0"},
    }
    summary = markdown.render(report(cells.write(tmp_path, "2.4", "cpu", results)))

    assert summary.startswith("# distparity: 2 of 3 cases failed, in 1 cell\n")
    assert summary.index("| c/ddp-ws2-f |") < summary.index("| b/ddp-ws2-f |")
    assert summary.index("| b/ddp-ws2-f |") < summary.index("## Scenarios")


def test_failures_that_are_alike_are_one_line_of_the_summary(tmp_path: Path) -> None:
    names = ["a/x-ws2-f", "b/x-ws4-f", *(f"b/y{n}-ws2-f" for n in range(8))]
    off = {name: {"status": "failed", "ratio": f"{n + 3}"} for n, name in enumerate(names)}
    for n, result in enumerate(off.values()):
        result["message"] = f"step 0: off by {n}.5e-7"
    paths = [cells.write(tmp_path, torch, "cpu", off) for torch in ("2.4", "2.5")]
    other = {"a/x-ws2-f": {"status": "failed", "message": "step 0: off by 3"}, **PASSED}
    paths.append(cells.write(tmp_path, "2.6", "cpu", other))

    table = (
        markdown.render(report(*paths)).partition("## What is wrong")[2].partition("<details")[0]
    )
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith("| ✖")]
    assert [line[1:] for line in lines] == [
        [
            "step N: off by N; the first: step 0: off by 0.5e-7",
            (
                "a/x-ws2-f, b/x-ws4-f, b/y0-ws2-f, b/y1-ws2-f, b/y2-ws2-f, b/y3-ws2-f, b/y4-ws2-f, "
                "b/y5-ws2-f and 2 more"
            ),
            "torch 2.4 on cpu, torch 2.5 on cpu, torch 2.6 on cpu",
            "12 |",
        ],
    ]


RATES = {
    "all": ({"passed": 3, "not supported": 2}, "100 %"),
    "one of 2,000 is not right": ({"passed": 1999, "failed": 1}, "99.9 %"),
    "a known defect is no success": ({"passed": 1, "expected failure": 1}, "50 %"),
    "nothing": ({"not supported": 4}, "none judged"),
}


@pytest.mark.parametrize(("counts", "rate"), RATES.values(), ids=RATES)
def test_rate_is_of_what_was_judged(counts: dict[str, int], rate: str) -> None:
    assert markdown._rate(counts) == rate


TITLES = {
    "passed": "no failures in 1 case of 1 cell",
    "not supported": "none of 1 case in 1 cell passed",
    "flaky": "1 of 1 case failed, in 1 cell",
}


@pytest.mark.parametrize(("status", "title"), TITLES.items(), ids=TITLES)
def test_summary_does_not_call_silence_a_success(tmp_path: Path, status: str, title: str) -> None:
    path = cells.write(tmp_path, "2.4", "cpu", {CASE: {"status": status}})

    assert markdown.render(report(path)).startswith(f"# distparity: {title}\n")


def test_summary_of_a_large_matrix_fits(tmp_path: Path) -> None:
    cells.matrix(tmp_path, [f"2.{n}" for n in range(10)], ["cpu", "hpu"], 10, 10)
    found = report(*files([tmp_path]))
    messages: list[str] = []
    for column in found.columns:
        for case, result in column.results.items():
            own = str(len(messages)).translate(str.maketrans("0123456789", "abcdefghij"))
            messages.append(f"{own} {'é' * 2_000}")
            column.results[case] = type(result)("failed", messages[-1], "\n".join(["ü"] * 9_000))
    text = markdown.render(found)

    assert len(text.encode()) <= markdown.LIMIT
    assert "more did not fit; the HTML report has them" in text


LENGTHS = {"short": ("abc", 10), "exact": ("abcdefghij", 10), "long": ("a" * 500, 100)}


@pytest.mark.parametrize(("text", "limit"), LENGTHS.values(), ids=LENGTHS)
def test_text_is_cut_only_beyond_its_limit(text: str, limit: int) -> None:
    assert (shorten(text, limit) == text) is (len(text) <= limit)


# -- what became slower ------------------------------------------------------------------------


def timed(folder: Path, torch: str, device: str, seconds: dict[str, float], **facts: str) -> Path:
    """A cell whose cases passed in these times; a negative one failed."""
    results = {case: {**cells.PASSED} for case in seconds}
    results |= {case: {"status": "failed"} for case, time in seconds.items() if time < 0}
    path = cells.write(folder, torch, device, results, **facts)
    text = path.read_text()
    for time in seconds.values():
        text = text.replace('time="0.05"', f'time="{abs(time)}"', 1)
    path.write_text(text)
    return path


SLOW = {"a/x-ws2-float32": 3.0, "b/x-ws2-float32": 1.0, "c/x-ws2-float32": -9.0}
FAST = {"a/x-ws2-float32": 1.5, "b/x-ws2-float32": 1.0, "c/x-ws2-float32": 1.0}
COMPARED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "alike": (
        {},
        [
            "2.13-cpu against 2.12-cpu: 1 of 2 cases slower by 1.5 (median 1.50)",
            "  a/x-ws2-float32: 2.00 times (1.500 s, now 3.000 s)",
        ],
    ),
    "another machine": (
        {"device_name": "Another"},
        ["2.13-cpu against 2.12-cpu: not compared: device_name differs"],
    ),
}


@pytest.mark.parametrize(("facts", "lines"), COMPARED.values(), ids=COMPARED)
def test_what_became_slower_is_listed(
    tmp_path: Path, facts: dict[str, Any], lines: list[str]
) -> None:
    found = report(
        timed(tmp_path, "2.12", "cpu", FAST), timed(tmp_path, "2.13", "cpu", SLOW, **facts)
    )

    assert slower(found, 1.5) == lines


SPEEDS = {
    "less": (
        (64, 2),
        (64, 0.5),
        ["  a/x-ws2-float32: 4.00 times (2 GB/s, now 0.5 GB/s)"],
    ),
    "more": ((64, 0.5), (64, 2), []),
    "another size": ((1, 2), (64, 0.5), None),
}


@pytest.mark.parametrize(("then", "now", "lines"), SPEEDS.values(), ids=SPEEDS)
def test_an_operation_over_sizes_is_compared_by_its_bandwidth(
    tmp_path: Path, then: tuple[int, float], now: tuple[int, float], lines: list[str] | None
) -> None:
    paths = [
        cells.write(
            tmp_path,
            torch,
            "cpu",
            {
                "a/x-ws2-float32": {
                    **cells.PASSED,
                    "largest": one[0] << 20,
                    "bandwidth": one[1] * 1e9,
                }
            },
        )
        for torch, one in (("2.12", then), ("2.13", now))
    ]

    first, *rest = slower(report(*paths), 1.5)

    assert rest == (lines or [])
    assert first.endswith("no case passed in both") is (lines is None)


def test_a_cell_is_compared_with_the_named_one(tmp_path: Path) -> None:
    one, other = (timed(tmp_path, name, "cpu", FAST) for name in ("2.12", "2.13"))

    assert slower(report(one, other), 1.5, "2.13-cpu") == [
        "2.12-cpu against 2.13-cpu: 0 of 3 cases slower by 1.5 (median 1.00)"
    ]
    with pytest.raises(ValueError, match=r"no cell '2\.1-cpu'; there are: 2\.12-cpu, 2\.13-cpu"):
        slower(report(one, other), 1.5, "2.1-cpu")


def test_slower_cases_do_not_change_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [timed(tmp_path, "2.12", "cpu", FAST), timed(tmp_path, "2.13", "cpu", SLOW)]

    code = cli.main(["report", *map(str, paths), "-o", str(tmp_path / "out"), "--slower", "1.5"])

    assert code == 0
    assert "  a/x-ws2-float32: 2.00 times (1.500 s, now 3.000 s)" in capsys.readouterr().out

    # One cell is slower than nothing, and the command says so.
    assert cli.main(["report", str(paths[0]), "-o", str(tmp_path / "out"), "--slower", "1.5"]) == 0
    assert "slower: nothing to compare" in capsys.readouterr().out


# -- the runs of a cell by date --------------------------------------------------------------------


def _of(path: Path, started: str, status: str = "passed") -> Path:
    """The XML of a run of 2.13-cpu at this time, in a folder of its own."""
    result = dict(cells.PASSED) if status == "passed" else {"status": status, "ratio": "inf"}
    xml = cells.write(path / started[:10], "2.13", "cpu", {CASE: result})
    xml.write_text(xml.read_text().replace("2026-11-20T08:00:00+00:00", started))
    return xml


def test_runs_of_a_cell_are_kept_by_date(tmp_path: Path) -> None:
    kept = tmp_path / "history" / "runs.json"
    dates = [f"2026-11-{day}T08:00:00+00:00" for day in (20, 21, 22)]
    for started, status in zip(dates, ("passed", "failed", "passed"), strict=True):
        write([_of(tmp_path, started, status)], tmp_path / "out", kept)
    # The same run again, and one that is older than all.
    write([tmp_path / "2026-11-21"], tmp_path / "out", kept)

    runs = history.read(kept)
    assert [run.started for run in runs] == dates
    assert [run.results[CASE][:2] for run in runs] == [
        ("passed", 0.1),
        ("failed", math.inf),
        ("passed", 0.1),
    ]
    (column,) = page_data((tmp_path / "out" / "index.html").read_text("utf-8"))["columns"]
    assert [run["ratio"] for run in column["runs"]] == [[0.1], ["inf"], [0.1]]


def test_history_keeps_the_newest_runs() -> None:
    runs = [history.Run("c", f"{n:04}", "t", "v", {}) for n in range(history.KEPT + 5)]

    assert history.joined(reversed(runs), Report([], [])) == runs[5:]


RUN = history.Run("c", "2026", "2.13", "1", {CASE: history.Kept("passed", 0.5)})


@pytest.mark.parametrize(
    "kept", [history.Kept("passed", 0.5), history.Kept("passed", 0.5, 1.25, 2.5e9)]
)
def test_history_keeps_times_and_bandwidths(tmp_path: Path, kept: history.Kept) -> None:
    file = tmp_path / "runs.json"
    run = replace(RUN, results={CASE: kept, "b/ddp-ws2-f": history.Kept("failed", None)})
    file.write_text(history.render([run]))

    assert history.read(file) == [run]
    # A file of an earlier version has neither.
    bare = json.loads(file.read_text())
    del bare["runs"][0]["seconds"], bare["runs"][0]["bandwidth"]
    file.write_text(json.dumps(bare))
    assert history.read(file)[0].results[CASE] == (*kept[:2], None, None)


HISTORIES = {
    "no JSON": ("{", "not a history of distparity"),
    "another file": ("[]", "not a history of distparity"),
    "another format": ('{"format": 9, "runs": []}', "it has format 9, not 1"),
    "an unknown status": (history.render([RUN]).replace('"passed"', '"fine"'), "status 'fine'"),
    "a ratio that is none": (history.render([RUN]).replace("[0.5]", "[-1]"), "-1 is no ratio"),
}


@pytest.mark.parametrize(("text", "says"), HISTORIES.values(), ids=HISTORIES)
def test_history_that_is_wrong_is_refused_and_stays(tmp_path: Path, text: str, says: str) -> None:
    kept = tmp_path / "runs.json"
    kept.write_text(text)

    with pytest.raises(Refused, match=re.escape(says)):
        write([cells.write(tmp_path, "2.4", "cpu", PASSED)], tmp_path / "out", kept)
    assert kept.read_text() == text
    assert not (tmp_path / "out").exists()


def test_case_has_the_files_of_its_scenario_and_strategy(tmp_path: Path) -> None:
    files = {"scenario_source": "scenarios/a.py", "strategy_source": "strategies/ddp.py"}
    xml = cells.write(tmp_path, "2.4", "cpu", {CASE: {**cells.PASSED, **files}})
    write([xml], tmp_path / "out")

    data = page_data((tmp_path / "out" / "index.html").read_text("utf-8"))
    assert sorted(data["strings"][n] for n in data["columns"][0]["sources"].values()) == [
        "scenarios/a.py",
        "strategies/ddp.py",
    ]


# -- each pair of nodes ----------------------------------------------------------------------------


def paired(folder: Path) -> Path:
    """A run with ``--each-pair``, in which the second of two nodes is wrong."""
    ran = "n1 n1; n1 n2; n2:0 n2:1; n2:0 n2:2; n2:1 n2:2"
    bad = {"status": "failed", "message": "wrong", "pairs_wrong": "n1 n2; n2:0 n2:2"}
    results = {
        "a/ddp-ws2-float32": {**cells.PASSED, "pairs": ran, "pairs_wrong": ""},
        "b/ddp-ws2-float32": {**bad, "pairs": ran},
    }
    return cells.write(folder, "2.13", "cpu", results)


def test_each_pair_of_nodes_is_a_matrix_that_names_the_bad_one(tmp_path: Path) -> None:
    found = report(paired(tmp_path))
    text = markdown.render(found)
    for line in ("|  | n1 | n2 |", "| n1 | 0/2 | 1/2 |", "| n2 | 1/2 | 1/6 |"):
        assert line in text
    assert "| n2:0 | - | 0/2 | 1/2 |" in text
    assert "**n2 is in every pair that was wrong**" in text
    (column,) = html.payload(found)["columns"]
    assert column["pairs"]["conclusion"] == "n2 is in every pair that was wrong"
    assert [len(table) for table in column["pairs"]["tables"]] == [3, 4]
