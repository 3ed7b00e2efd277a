"""A share of a run, joining the shares, and going on after an interruption."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from conftest import TESTS, Suite
from hypothesis import given
from hypothesis import strategies as st

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.results import join, journal, junit_writer
from distparity.session import resume, shares
from distparity.session.options import Options
from distparity.session.shares import Share

CASES = [
    Case(f"s{scenario}", strategy, size, dtype, "cpu")
    for scenario in range(6)
    for strategy in ("ddp", "fsdp1", "fsdp2")
    for size in (2, 4)
    for dtype in ("float32", "float64")
]
SECONDS = st.dictionaries(
    st.sampled_from([case.id for case in CASES]), st.floats(0, 1e4, allow_nan=False)
)


def taken(count: int, seconds: dict[str, float]) -> list[list[Case]]:
    return [shares.take(CASES, Share(index, count), seconds) for index in range(1, count + 1)]


@given(count=st.integers(1, 40), seconds=SECONDS)
def test_shares_are_disjoint_and_complete(count: int, seconds: dict[str, float]) -> None:
    found = taken(count, seconds)

    assert sorted(case.id for share in found for case in share) == sorted(c.id for c in CASES)
    assert all(share == [case for case in CASES if case in share] for share in found)


def test_shares_are_alike_in_time() -> None:
    seconds = {case.id: 1.0 + 9 * (case.scenario == "s3") for case in CASES}

    loads = [sum(seconds[case.id] for case in share) for share in taken(4, seconds)]

    # The largest group that stays together takes 30 s.
    assert max(loads) - min(loads) <= 30


@pytest.mark.parametrize("words", ["0/2", "3/2", "2", "a/b", "-1/2", "1/2/3"])
def test_share_that_there_is_not(words: str) -> None:
    with pytest.raises(BadRequest, match="it must be I/N"):
        Share.of(words)


# -- joining ---------------------------------------------------------------------------------------

EVERY = ["a/ddp-ws2-float32", "b/ddp-ws2-float32", "c/ddp-ws2-float32"]
FACTS = {"torch": "2.13.0", "world_sizes": [2], "declared": 2, "command": "x", "shard": "1/2"}


def share(
    folder: Path, index: int, cases: list[str], end: str | None = "finished", **other: Any
) -> Path:
    """A side file of a share of two, in which every case passed; without an end, its run died."""
    folder.mkdir(exist_ok=True)
    path, xml = journal.paths(folder, "2.13", "cpu", f"{index}/2")
    header = {
        "cell": {"torch": "2.13", "device": "cpu"},
        "facts": {**FACTS, "shard": f"{index}/2", **other.pop("facts", {})},
        "cases": cases,
        "about": {case: {"scenario": case[0]} for case in cases},
        "shard": {"index": index, "count": 2, "of": EVERY},
        **other,
    }
    writer = journal.Journal(path, xml, header)
    for case in cases:
        writer.add(case, Outcome(Status.PASSED))
    writer.end(end or "")
    if end is None:
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    return path


def test_joined_shares_are_the_cell(tmp_path: Path) -> None:
    paths = [share(tmp_path, 2, EVERY[1:2]), share(tmp_path, 1, [EVERY[0], EVERY[2]])]

    (joined,) = join.join(paths)

    found = journal.read(joined)
    assert joined == tmp_path / "junit-2.13-cpu.jsonl"
    assert list(found.outcomes) == EVERY
    assert found.ended == "finished"
    assert found.header["facts"]["declared"] == 3
    assert "shard" not in found.header["facts"]
    assert junit_writer.statuses(junit_writer.write_from_journal(joined)) == dict.fromkeys(
        EVERY, "passed"
    )


@pytest.mark.parametrize(
    ("ends", "joined"),
    [
        (("finished", "finished"), "finished"),
        (("finished", "stopped by -x"), "stopped by -x"),
        (("no memory", "interrupted"), "interrupted; no memory"),
        ((None, "finished"), "died"),
    ],
)
def test_joined_shares_say_what_each_says(
    tmp_path: Path, ends: tuple[str | None, str], joined: str
) -> None:
    """Facts of a share's own may differ."""
    paths = [
        share(tmp_path, 1, EVERY[:1], ends[0], started=100.0),
        share(tmp_path, 2, EVERY[1:], ends[1], facts={"world_sizes": [4, 2], "platform": "other"}),
    ]
    seconds = [journal.read(path).seconds for path in paths]

    (path,) = join.join(paths)

    found = journal.read(path)
    assert found.ended == joined
    assert {case: one.facts["scenario"] for case, one in found.outcomes.items()} == {
        case: case[0] for case in EVERY
    }
    assert found.seconds == pytest.approx(max(seconds))
    assert found.header["facts"] == {
        **{key: value for key, value in FACTS.items() if key != "shard"},
        "declared": 3,
        "world_sizes": [2, 4],
        "shards": 2,
    }
    assert "shard" not in found.header


def test_a_joined_side_file_has_the_documented_lines(tmp_path: Path) -> None:
    (path,) = join.join([share(tmp_path, 1, EVERY[:1]), share(tmp_path, 2, EVERY[1:])])

    first, *results, last = map(json.loads, path.read_text().splitlines())
    about = {case: {"scenario": case[0]} for case in EVERY}
    passed = {case: Outcome(Status.PASSED, facts=about[case]).to_json() for case in EVERY}
    assert first["header"]["about"] == about
    assert results == [{"case": case, "outcome": passed[case], "at": last["at"]} for case in EVERY]
    assert last == {"end": "finished", "at": pytest.approx(time.time(), abs=600), "facts": {}}


def test_joined_shares_of_two_cells_are_two(tmp_path: Path) -> None:
    cells = [{"torch": torch, "device": "cpu"} for torch in ("2.12", "2.13")]
    paths = [
        share(tmp_path / torch["torch"], index, cases, cell=torch)
        for torch in cells
        for index, cases in ((1, EVERY[:1]), (2, EVERY[1:]))
    ]

    assert [path.name for path in join.join(paths)] == [
        "junit-2.12-cpu.jsonl",
        "junit-2.13-cpu.jsonl",
    ]


def test_a_whole_cell_is_no_share(tmp_path: Path) -> None:
    path, xml = journal.paths(tmp_path, "2.13", "cpu")
    header = {"cell": {"torch": "2.13", "device": "cpu"}, "facts": {}, "cases": []}
    journal.Journal(path, xml, header).end("finished")

    with pytest.raises(ValueError, match="is not a share of a cell: its run had no --shard"):
        join.join([path])


WRONG: dict[str, tuple[list[tuple[int, list[str], dict[str, Any]]], str]] = {
    "one is missing": ([(1, EVERY[:1], {})], "of 2 shares, there are 1"),
    "one is another's": (
        [(1, EVERY[:1], {}), (2, EVERY[1:], {"shard": {"index": 3, "count": 2, "of": EVERY}})],
        "of 2 shares, there are 1, 3$",
    ),
    "a case is missing": ([(1, EVERY[:1], {}), (2, EVERY[1:2], {})], "not have every case once"),
    "a case is twice": ([(1, EVERY[:2], {}), (2, EVERY[1:], {})], "not have every case once"),
    "another torch": (
        [(1, EVERY[:1], {}), (2, EVERY[1:], {"facts": {"torch": "2.12"}})],
        "differ in torch: '2.12' and '2.13.0'",
    ),
    "a fact of one alone": (
        [(1, EVERY[:1], {}), (2, EVERY[1:], {"facts": {"cuda": "13"}})],
        "differ in cuda: '13' and None",
    ),
    "another list": (
        [(1, EVERY[:1], {}), (2, EVERY[1:], {"shard": {"index": 2, "count": 2, "of": EVERY[1:]}})],
        "different lists of cases",
    ),
}


@pytest.mark.parametrize(("parts", "said"), WRONG.values(), ids=WRONG)
def test_shares_that_do_not_fit_are_refused(
    parts: list[tuple[int, list[str], dict[str, Any]]], said: str, tmp_path: Path
) -> None:
    paths = [share(tmp_path, index, cases, **other) for index, cases, other in parts]

    with pytest.raises(ValueError, match=said):
        join.join(paths)

    assert not (tmp_path / "junit-2.13-cpu.jsonl").exists()


def test_shares_in_a_folder_are_joined_before_it_is_read(tmp_path: Path) -> None:
    for index, cases in ((1, EVERY[:1]), (2, EVERY[1:])):
        junit_writer.write_from_journal(share(tmp_path / f"job {index}", index, cases))
    script = TESTS.parent / "ci" / "join_shares.py"

    done = subprocess.run(
        [sys.executable, "-S", script, tmp_path], capture_output=True, text=True, check=True
    )

    assert "junit-2.13-cpu: 2 shares, joined in" in done.stdout
    assert [path.name for path in tmp_path.rglob("*.xml")] == ["junit-2.13-cpu.xml"]


# -- going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"facts": {**FACTS, "torch": "2.12"}}, "torch was '2.13.0' and is '2.12'"),
        ({"cases": EVERY}, "the list of cases was a list of 2 and is a list of 3"),
        ({"options": {"limit": "7"}}, "the option limit was None and is '7'"),
        ({"shard": None}, "the share was"),
    ],
    ids=["torch", "cases", "options", "share"],
)
def test_another_run_is_not_resumed(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = share(tmp_path, 1, EVERY[:2])
    header = {**journal.read(path).header, **change}

    with pytest.raises(BadRequest, match=said):
        resume.results(path, header)


@pytest.mark.parametrize("option", ["include", "plugins"])
@pytest.mark.parametrize(
    ("name", "file"),
    [("alone", "alone.py"), ("pack", "pack/__init__.py"), ("pack.inner", "pack/inner.py")],
)
def test_a_module_that_was_changed_is_another_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, name: str, file: str
) -> None:
    """Results of the former module would stand beside those of the present one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pack").mkdir()
    for each in ("alone.py", "pack/__init__.py", "pack/inner.py"):
        (tmp_path / each).write_text("raise AssertionError('it was imported')")
    options = Options()
    setattr(options, option, [name if option == "include" else f"{name}:Device"])

    before = options.deciding
    assert options.deciding == before
    (tmp_path / file).write_text("another")
    changed = {key for key, value in options.deciding.items() if value != before[key]}

    assert changed == {option}


def test_what_could_not_run_without_a_lost_node_runs_again(tmp_path: Path) -> None:
    path = share(tmp_path, 1, EVERY[:2])
    found = journal.read(path)
    lost = Outcome(Status.NOT_AVAILABLE, "1 node is left", facts={"lost_nodes": "node2"})
    done = {**found.done, EVERY[1]: lost}
    with mock.patch.object(journal, "read", return_value=replace(found, done=done)):
        assert list(resume.results(path, found.header)) == [EVERY[0]]


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="nothing to resume"):
        resume.results(tmp_path / "junit-2.13-cpu.jsonl", {})


def test_a_run_that_is_shared_or_resumed_has_the_same_results(suite: Suite) -> None:
    words = ["--device", "cpu", "--world-size", "2", "-k", "(basic/ or buffers/) and /ddp-"]
    whole = suite(*words)
    side = whole.folder / "junit-here-cpu.jsonl"
    before, lines = whole.statuses("here-cpu"), side.read_text().splitlines()
    assert len(before) > 3
    # As a run that died in the middle of a line leaves it.
    side.write_text("\n".join([*lines[:3], lines[3][:40]]))

    resumed = suite(*words, "--resume", "--report-dir", str(whole.folder))
    parts = [suite(*words, "--shard", f"{index}/2") for index in (1, 2)]

    (joined,) = join.join(
        [next(part.folder.glob(f"*shard-{i}-of-2.jsonl")) for i, part in enumerate(parts, 1)]
    )
    assert (resumed.code, *(part.code for part in parts)) == (0, 0, 0), resumed.output
    assert whole.statuses("here-cpu") == before
    found = journal.read(side)
    assert found.header["facts"]["resumed"] == f"after 2 of {len(before)} results"
    ran = [
        json.loads(line)
        for line in side.read_text().splitlines()
        if line.startswith('{"case"') and line.endswith("}")
    ]
    assert len(ran) == len(before)
    xml = junit_writer.write_from_journal(joined)
    assert junit_writer.statuses(xml) == before
