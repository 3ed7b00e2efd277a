"""The search for the release in which a case changed: against tables, and from outside."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import environment
from loopback_index import fake_wheel, serve
from warm import PATIENCE

from distparity import releases
from distparity.bisection import Bisection, Candidate, Observation, Refused, Span, between, given
from distparity.bisection.environment import Environments
from distparity.bisection.observation import Question, observe, read
from distparity.bisection.search import every, search
from distparity.core.bad_request import BadRequest
from distparity.core.outcome import Outcome, Status
from distparity.releases import NoSuchCell
from distparity.results import junit_writer
from distparity.results.journal import Journal, paths

CASE = "multiple_forward/ddp-ws2-float32"

# -- the search ------------------------------------------------------------------------------------


class Table:
    """Answers from a text, a letter a release; ``.`` cannot say. Remembers what it was asked."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[int] = []

    def __call__(self, place: int) -> str | None:
        self.asked.append(place)
        return None if self.text[place] == "." else self.text[place]


@pytest.mark.parametrize(
    ("table", "before", "after"),
    [
        pytest.param("gb", 0, 1, id="neighbours"),
        pytest.param("gbbbbbbb", 0, 1, id="at once"),
        pytest.param("gggggggb", 6, 7, id="at last"),
        pytest.param("ggggbbbb", 3, 4, id="in the middle"),
        pytest.param("bbbggggg", 2, 3, id="mended"),
        pytest.param("gggg.bbb", 3, 5, id="a hole where it changed"),
        pytest.param("g......b", 0, 7, id="nothing but holes"),
        pytest.param("g.g.b.b.b", 2, 4, id="a hole between any two"),
        pytest.param("gg..g..bb", 4, 7, id="wide holes"),
        pytest.param("g.gggggbb", 6, 7, id="a hole elsewhere"),
    ],
)
def test_search_finds_the_change(table: str, before: int, after: int) -> None:
    found = search(0, len(table) - 1, Table(table))

    assert (found.before, found.after) == (before, after)
    assert {table[place] for place in found.between} <= {"."}


@pytest.mark.parametrize("change", range(1, 64))
def test_search_asks_few_of_many_and_none_twice(change: int) -> None:
    table = Table("g" * change + "b" * (64 - change))

    assert search(0, 63, table).after == change
    assert len(table.asked) <= 7
    assert len(table.asked) == len(set(table.asked))


@pytest.mark.parametrize("table", ["gbgbgb", "gggbbgggb", "gb.gb", "g.b.g.b"])
def test_with_several_changes_one_of_them_is_found_and_all_when_every_release_is_asked(
    table: str,
) -> None:
    last = len(table) - 1
    changes = list(every(0, last, Table(table)))

    assert search(0, last, Table(table)) in changes
    for found in changes:
        assert table[found.before] != table[found.after]
        assert {table[place] for place in found.between} <= {"."}
    told = table.replace(".", "")
    assert len(changes) == sum(one != other for one, other in itertools.pairwise(told))


# -- the releases ----------------------------------------------------------------------------------


def _names(span: Span) -> list[str]:
    return [candidate.name for candidate in span.candidates]


@pytest.mark.parametrize(
    ("good", "bad", "names", "ends"),
    [
        ("2.6", "2.8", ["2.6.0", "2.7.0", "2.7.1", "2.8.0"], ("2.6.0", "2.8.0")),
        ("2.4.0", "2.5", ["2.4.0", "2.4.1", "2.5.0", "2.5.1"], ("2.4.0", "2.5.1")),
        ("2.7", "2.7.0", ["2.7.0", "2.7.1"], ("2.7.1", "2.7.0")),
        ("2.8.0", "2.7.0", ["2.7.0", "2.7.1", "2.8.0"], ("2.8.0", "2.7.0")),
    ],
)
def test_releases_between_two_with_their_patches(
    good: str, bad: str, names: list[str], ends: tuple[str, str]
) -> None:
    span = between(good, bad, ["cpu"])

    assert _names(span) == names
    assert (span.good.name, span.bad.name) == ends
    for candidate in span.candidates:
        assert candidate.source == releases.Source(f"torch=={candidate.name}", None)


def test_one_python_serves_all_releases_where_there_is_one() -> None:
    pythons = {candidate.python for candidate in between("2.4", "2.15").candidates}

    assert len(pythons) == 1
    assert pythons < {"3.11", "3.12"}


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("2.3", "2.8", r"unknown release '2\.3'; known: 2\.4\.0, 2\.4\.1, .*, and dates"),
        ("2.7.2", "2.8", r"unknown release '2\.7\.2'"),
        ("2.8", "2.8.0", "--good and --bad are the same"),
        ("2.8", "2026-05-01", "2.8 and 2026-05-01: give two releases, or two dates"),
    ],
)
def test_ends_that_make_no_sense(good: str, bad: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        between(good, bad)


@pytest.fixture
def index(tmp_path: Path) -> Any:
    folder = tmp_path / "nightly/cpu/torch"
    for version in (
        "2.9.0.dev20260430+cpu",
        "2.9.0.dev20260502+cpu",
        "2.9.0.dev20260503+cpu",
        "2.10.0.dev20260503+cpu",
        "2.10.0.dev20260601+cpu",
        "2.10.0.dev20260602+cpu",
    ):
        fake_wheel(folder, version)
    with serve(tmp_path) as address:
        yield address


def test_nightlies_by_date(index: str) -> None:
    span = between("2026-05-01", "2026-06-01", ["cpu"], index=index)

    assert _names(span) == ["2.9.0.dev20260502", "2.10.0.dev20260503", "2.10.0.dev20260601"]
    assert span.forward
    assert span.good.source == releases.Source("torch==2.9.0.dev20260502", f"{index}/nightly/cpu")


def test_nightlies_of_a_folder_of_wheels(index: str, tmp_path: Path) -> None:
    span = between("2026-06-02", "2026-04-30", index=tmp_path.as_uri())

    assert len(span.candidates) == 5
    assert not span.forward


def test_nightlies_that_are_not_there(index: str) -> None:
    with pytest.raises(BadRequest, match=r"has 2\.9\.0\.dev20260430 to 2\.10\.0\.dev20260602"):
        between("2027-01-01", "2027-02-01", index=index)
    with pytest.raises(NoSuchCell, match="has no torch"):
        between("2026-05-01", "2026-06-01", index=f"{index}/elsewhere")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["2.7.1=/no/such/python"], "--python 2.7.1=/no/such/python: give NAME="),
        (["2.7.1"], "--python 2.7.1: give NAME="),
        ([f"a={sys.executable}"], "'b' must be given once with --python; given: a"),
        ([f"a={sys.executable}"] * 2, "'a' must be given once with --python"),
    ],
)
def test_interpreters_that_are_not_as_they_should_be(words: list[str], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        given(words, "a", "b")


# -- what a release is -----------------------------------------------------------------------------


class Nowhere(Environments):
    """No interpreter is started, so nothing is copied for one."""

    def _carry(self) -> None:
        pass


class Stage:
    """A bisection over made-up releases ``1``, ``2``, ...; nothing is installed."""

    def __init__(self, folder: Path, seen: list[Observation], **more: Any) -> None:
        self.lines: list[str] = []
        candidates = [Candidate(f"r{n}", python=str(n)) for n in range(len(seen))]
        forward = more.pop("forward", True)
        self.work = Bisection(
            Span(candidates, forward),
            Question(CASE),
            say=self.lines.append,
            observe=lambda python, *_: seen[int(python.name)],
            **more,
        )
        self.environments = Nowhere(folder)

    def run(self, **more: Any) -> str | None:
        self.work.run(self.environments, **more)
        return str(self.work.to_json()["changes"][0]["first"])


def _passed(ratio: float) -> Observation:
    return Observation("passed", ratio=ratio)


FAILED = Observation("failed", "off by 1", 1e6)
UNSUPPORTED = Observation("not supported", "no such thing")
FLAPPING = Observation("flapping", "it ran 2 times: passed, failed")
G = _passed(0.1)


@pytest.mark.parametrize(
    ("seen", "factor", "first"),
    [
        pytest.param([G, G, FAILED, FAILED], None, "r2", id="outcome"),
        pytest.param([G, _passed(0.9), FAILED, FAILED], None, "r2", id="a ratio is no outcome"),
        pytest.param([G, _passed(0.2), _passed(0.5), _passed(0.9)], 4, "r2", id="ratio"),
        pytest.param([G, _passed(0.2), FAILED, _passed(0.9)], 4, "r2", id="worse than a ratio"),
        pytest.param([G, G, UNSUPPORTED, UNSUPPORTED], None, "r2", id="support"),
        pytest.param([G, UNSUPPORTED, G, FAILED], None, "r3", id="no support is no failure"),
        pytest.param([G, G, Observation("expected failure"), FAILED], None, "r2", id="expected"),
        pytest.param([G, Observation("unexpectedly fixed"), FAILED], None, "r2", id="fixed"),
        pytest.param([G, Observation("timeout"), FAILED], None, "r1", id="any failure"),
    ],
)
def test_release_that_changed(
    tmp_path: Path, seen: list[Observation], factor: float | None, first: str
) -> None:
    stage = Stage(tmp_path, seen, factor=factor)

    assert stage.run() == first
    assert stage.work.lines()[-1] == f"the first release in which it changed is {first}"


@pytest.mark.parametrize(
    "silent",
    [FLAPPING, Observation("not installed", "no wheel"), Observation("error"), UNSUPPORTED],
)
def test_release_that_cannot_be_judged_is_skipped_and_said(
    tmp_path: Path, silent: Observation
) -> None:
    stage = Stage(tmp_path, [G, silent, FAILED])

    assert stage.run() == "None"
    assert not stage.work.exact
    assert stage.work.to_json()["changes"][0]["unjudged"] == ["r1"]
    assert stage.work.lines()[-1] == "it changed in one of r1, r2: r1 could not be judged"
    assert [line.split(", ")[0].split() for line in stage.lines if "skipped" in line] == [
        ["r1", "skipped"]
    ]


@pytest.mark.parametrize(
    ("seen", "more", "message"),
    [
        ([FAILED, FAILED], {}, "r0 is not good: failed"),
        ([G, G], {}, "r1 is not bad: passed, ratio 0.1"),
        ([G, _passed(0.3)], {"factor": 4}, "at r0 it is 0.1, and the factor 4"),
        ([G, FLAPPING], {}, "r1 is not bad, because it cannot be judged: flapping"),
        ([FLAPPING, FAILED], {}, "r0 is not good: flapping"),
        ([G, FAILED], {"forward": False}, "r1 is not good: failed"),
    ],
)
def test_end_that_is_not_what_was_said_is_refused(
    tmp_path: Path, seen: list[Observation], more: dict[str, Any], message: str
) -> None:
    stage = Stage(tmp_path, seen, **more)

    with pytest.raises(Refused, match=message):
        stage.run()
    assert message in stage.work.to_json()["refused"]


@pytest.mark.parametrize("number", range(2, 20))
def test_outlook_is_the_most_that_are_tried_where_all_can_be(tmp_path: Path, number: int) -> None:
    tried = []
    for change in range(1, number):
        stage = Stage(tmp_path, [G] * change + [FAILED] * (number - change))
        stage.run()
        tried.append(len(stage.work.seen))

    assert stage.lines[0] == f"r0 to r{number - 1}: {number} releases, {max(tried)} to try"


def test_every_release_is_asked_where_that_is_wanted(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [G, FAILED, G, FAILED])

    stage.run(exhaustive=True)
    assert [c["first"] for c in stage.work.to_json()["changes"]] == ["r1", "r2", "r3"]


def test_another_torch_than_was_asked_for_is_no_answer(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [G, replace(G, torch="2.8.0+cpu")])
    stage.work.span = Span(
        [Candidate("2.7.0", python="0"), Candidate("2.7.1", python="1")], forward=True
    )

    with pytest.raises(Refused, match=r"torch 2\.7\.1 should have run, but 2\.8\.0\+cpu ran"):
        stage.run()


# -- one run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome(Status.PASSED, facts={"ratio": 0.25}), "passes"),
        (Outcome(Status.FAILED, "off", "whole", {"ratio": 1e30, "diagnosis": "summed"}), "fails"),
        (Outcome(Status.NOT_SUPPORTED, "torch says no"), "is not supported"),
        (Outcome(Status.ERROR, "the oracle"), None),
        (Outcome(Status.MISSING, "no result"), None),
    ],
    ids=lambda value: value.status.value if isinstance(value, Outcome) else "",
)
def test_xml_of_a_run_says_what_was_seen(
    tmp_path: Path, outcome: Outcome, kind: str | None
) -> None:
    path, xml = paths(tmp_path, "bisect", "cpu")
    cell = {"torch": "bisect", "device": "cpu"}
    header: Mapping[str, Any] = {"cell": cell, "facts": {"torch": "2.8.0+cpu"}, "cases": [CASE]}
    journal = Journal(path, xml, dict(header))
    journal.add(CASE, outcome)
    journal.end("finished")

    seen = read(junit_writer.write_from_journal(path))

    assert (seen.kind, seen.status, seen.torch) == (kind, outcome.status.value, "2.8.0+cpu")
    assert seen.message == outcome.message
    assert seen.ratio == outcome.facts.get("ratio")


def test_interpreter_that_cannot_run_the_suite_is_no_answer(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pytest'; exit 1\n")
    python.chmod(0o755)

    seen = observe(python, tmp_path, Question(CASE))

    assert seen.kind is None
    assert "no XML was written: No module named pytest" in str(seen)


# -- from outside ----------------------------------------------------------------------------------


def _bisect(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distparity", "bisect", "--case", CASE, *words],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """This interpreter, with a switch that makes a collective wrong."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nDISTPARITY_TEST_WRONG=1 exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_interpreters_that_are_given_are_searched_and_nothing_is_left(
    tmp_path: Path, broken: str
) -> None:
    good = f"={sys.executable}"
    words = [f"--python={name}" for name in (f"a{good}", f"b{good}", f"c={broken}", f"d={broken}")]
    case = "multiple_forward/switched-ws2-float32"
    (tmp_path / "temporary").mkdir()

    done = _bisect(
        *["--case", case, "--include", "switched_strategy", "--good", "a", "--bad", "d"],
        *[*words, "--json", str(tmp_path / "seen.json")],
        TMPDIR=str(tmp_path / "temporary"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "the first release in which it changed is c"
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["changes"] == [{"first": "c", "before": "b", "after": "c", "unjudged": []}]
    assert [one["status"] for one in seen["releases"]] == ["passed", "passed", "failed", "failed"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_uv_it_says_so(tmp_path: Path) -> None:
    done = _bisect("--good", "2.6", "--bad", "2.8", PATH=str(tmp_path))

    assert done.returncode == 4
    assert "uv is not on PATH" in done.stderr


def test_release_that_cannot_be_installed_is_not_taken_for_good(tmp_path: Path) -> None:
    pytest.importorskip("uv")
    (tmp_path / "index/cpu/torch").mkdir(parents=True)
    words = ["--index", (tmp_path / "index").as_uri(), "--wheel", "cpu"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    done = _bisect(
        "--good", "2.6", "--bad", "2.8", *words, UV_OFFLINE="1", PATH=path, TMPDIR=str(tmp_path)
    )

    assert done.returncode == 4
    assert "2.6.0 is not good: not installed" in done.stderr
