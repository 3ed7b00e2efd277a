"""What the terminal shows: as text, through a pipe, and through a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Distparity, Suite, command, environment, run_words
from warm import PATIENCE, Started, Warm, can_run

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.core.statuses import STATUSES
from distparity.core.torch_facts import DeviceFacts
from distparity.pytest_plugin import matrix_view, summary
from distparity.pytest_plugin.matrix_view import marks
from distparity.pytest_plugin.progress import Progress
from distparity.session import wording
from distparity.session.cell import Cell
from distparity.session.options import Options

# -- the matrix ------------------------------------------------------------------------------------


def _matrix(
    table: dict[str, list[Status]], width: int = 80, encoding: str | None = "utf-8"
) -> list[str]:
    """The lines for outcomes by ``scenario/strategy``."""
    cases, outcomes = [], {}
    for name, statuses in table.items():
        for size, status in enumerate(statuses, 2):
            scenario, _, strategy = name.partition("/")
            case = Case(scenario, strategy, size, "float32", "cpu")
            cases.append(case)
            outcomes[case.id] = Outcome(status)
    lines = matrix_view.matrix(cases, outcomes, width, encoding)
    return ["".join(text for text, _ in line) for line in lines]


P, F, N = Status.PASSED, Status.FAILED, Status.NOT_SUPPORTED


def test_matrix_is_scenarios_by_families_of_strategies() -> None:
    table = {
        "plain/ddp": [P, P],
        "plain/ddp_static": [P, F],
        "plain/fsdp2": [P, N],
        "clip_by_norm/ddp": [P],
        "clip_by_norm/fsdp2_nested": [N, N],
    }

    assert _matrix(table) == [
        "              ddp     fsdp2",
        "plain         3/4 ✖1  1/2 ⊘1",
        "clip_by_norm  1/1     ⊘2",
        "✖ failed, ⊘ not supported",
    ]


def test_matrix_of_many_scenarios_is_by_family_and_names_what_is_wrong() -> None:
    names = [f"scenario{n:02}" for n in range(matrix_view.SCENARIOS + 1)]
    families = {name: ("calls" if n < 20 else "layers") for n, name in enumerate(names)}
    cases = [Case(name, strategy, 2, "f", "cpu") for name in names for strategy in ("ddp", "tp")]
    outcomes = {case.id: Outcome(P) for case in cases}
    outcomes["scenario07/tp-ws2-f"] = Outcome(F)
    outcomes["scenario08/tp-ws2-f"] = Outcome(N)

    lines = matrix_view.matrix(cases, outcomes, families=families)
    assert ["".join(text for text, _ in line) for line in lines] == [
        "              ddp    tp",
        "calls         20/20  18/20 ✖1 ⊘1",
        "  scenario07  1/1    0/1 ✖1",
        "layers        11/11  11/11",
        "✖ failed, ⊘ not supported",
    ]


def test_matrix_in_an_encoding_that_has_no_such_marks() -> None:
    lines = _matrix({"plain/ddp": [P, F], "plain/fsdp2": [N]}, encoding="latin-1")

    assert lines[1:] == ["plain  1/2 F1  s1", "F failed, s not supported"]
    assert all(line.isascii() for line in lines)


def test_matrix_that_is_too_wide_goes_on_below() -> None:
    table = {f"scenario/strategy{n:02}": [P] * 10 for n in range(12)}

    lines = _matrix(table, width=60)
    assert max(map(len, lines)) <= 60
    assert " ".join(lines).split().count("10/10") == 12
    heads = [line.split() for line in lines if "strategy" in line]
    assert [name for head in heads for name in head] == [f"strategy{n:02}" for n in range(12)]


def test_matrix_of_hundreds_of_ways_has_one_column() -> None:
    names = [f"way{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(matrix_view.COLUMNS + 1)]
    table = {f"{scenario}/{name}": [P] for scenario in ("one", "two") for name in names}

    lines = _matrix(table, width=60)

    assert [line.split() for line in lines] == [["all"], ["one", "61/61"], ["two", "61/61"]]


@pytest.mark.parametrize("width", [0, 1, 12])
def test_matrix_in_no_room_shows_all_the_same(width: int) -> None:
    assert len(_matrix({"scenario/one": [P], "scenario/two": [P]}, width)) == 5


@pytest.mark.parametrize(
    "table", [{}, {"plain/ddp": [P, P]}, {"plain/ddp": [P], "plain/ddp_x": [F]}]
)
def test_nothing_to_put_side_by_side_is_no_matrix(table: dict[str, list[Status]]) -> None:
    assert _matrix(table) == []


def test_case_without_a_result_is_missing() -> None:
    cases = [Case("a", strategy, 2, "float32", "cpu") for strategy in ("ddp", "fsdp2")]

    lines = matrix_view.matrix(cases, {cases[0].id: Outcome(P)})
    assert "".join(text for text, _ in lines[1]) == "a  1/1  0/1 ?1"


@pytest.mark.parametrize(
    ("statuses", "style"),
    [
        ([P, P], "green"),
        ([P, N], ""),
        ([P, Status.EXPECTED], ""),
        ([N], "yellow"),
        ([P, F], "red"),
        ([N, F], "red"),
    ],
)
def test_colour_of_a_square(statuses: list[Status], style: str) -> None:
    cases = [Case("a", "ddp", size, "float32", "cpu") for size in range(len(statuses))]
    outcomes = {case.id: Outcome(one) for case, one in zip(cases, statuses, strict=True)}
    other = Case("a", "fsdp2", 2, "float32", "cpu")

    lines = matrix_view.matrix([*cases, other], {**outcomes, other.id: Outcome(P)})
    assert lines[1][1][1] == style


def test_marks_are_the_reports_and_no_two_are_alike() -> None:
    assert {one.name: one.mark for one in STATUSES} == marks("utf-8")
    assert list(marks("utf-8")) == [one.name for one in STATUSES]
    for encoding in ("utf-8", "ascii", None, "no-such-encoding"):
        found = marks(encoding)
        assert len(set(found.values())) == len(found)
    assert all(sign.isascii() for sign in marks("ascii").values())


# -- the progress ----------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("done", "elapsed", "text"),
    [
        (1, 60, "1 of 100"),
        (20, 1, "20 of 100"),
        (20, 10, "20 of 100, about 40 s left"),
        (99, 99, "99 of 100, a few seconds left"),
        (90, 90, "90 of 100, about 10 s left"),
        (40, 39.6, "40 of 100, about 60 s left"),
        (10, 60, "10 of 100, about 9 min left"),
        (10, 1200, "10 of 100, about 3.0 h left"),
    ],
)
def test_time_left_is_by_the_rate_so_far(done: int, elapsed: float, text: str) -> None:
    clock = Clock()
    progress = Progress(io.StringIO(), 100, clock)
    progress.done = done
    clock.now += elapsed

    assert progress.texts()[0] == text


@pytest.mark.parametrize(
    ("column", "text"),
    [(0, "20 of 100, about 40 s left"), (60, "about 40 s left"), (68, "20 of 100"), (75, "")],
)
def test_progress_is_never_cut_off(column: int, text: str) -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, 100, clock)
    progress.done = 20
    clock.now += 10

    progress.show(column, 80)
    shown = re.sub(r"\x1b(\[K|7|8)", "", stream.getvalue())
    assert shown.strip() == text
    assert column + len(shown) < 80


def test_progress_takes_away_what_it_showed_and_nothing_else() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 2)

    progress.clear()
    assert stream.getvalue() == ""
    progress.show(0, 80)
    progress.clear()
    assert stream.getvalue().endswith("\x1b[K")
    progress.done = 2
    progress.show(0, 80)
    progress.clear()
    assert stream.getvalue().count("of 2") == 1


# -- a run -----------------------------------------------------------------------------------------

#: Two strategies of one scenario, one case of them wrong.
WORDS = ("--device", "cpu", "--world-size", "2", "--include", "wrong_strategies")
FEW = (*WORDS, "-k", "multiple_forward and float32 and (wrong_local or fsdp2-ws2 or ddp-ws2)")


def _through_a_terminal(warm: Warm, folder: Path, *words: str, **variables: str) -> str:
    """What a terminal of 100 columns gets, with its control characters."""
    leader, follower = pty.openpty()
    size = {"COLUMNS": "100", "LINES": "40", "TERM": "xterm", **variables}
    with os.fdopen(follower, "wb", buffering=0) as terminal:
        process: subprocess.Popen[bytes] | Started
        if can_run(environment(**size), environment()):
            known = run_words("--cell", "here", *words)
            process = warm.start(known, folder, environment(**size), output=terminal)
        else:
            process = subprocess.Popen(
                command("--cell", "here", *words),
                cwd=folder,
                env=environment(**size),
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
            )
    parts = []
    try:
        while part := os.read(leader, 65536):
            parts.append(part)
    except OSError:
        # The other end is closed: the process has ended.
        pass
    finally:
        os.close(leader)
    process.wait(PATIENCE)
    return b"".join(parts).decode()


@pytest.fixture
def through(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    for name in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "CI", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)
    return lambda *words, **variables: _through_a_terminal(warm, tmp_path, *words, **variables)


def test_terminal_shows_progress_colours_and_marks(through: Callable[..., str]) -> None:
    output = through(*FEW, PYTHONUTF8="1")

    # Before any result, and so while a case is under way: what it waits for is shown.
    assert re.search(r"\x1b7\x1b\[K  0 of (\d+)\x1b8(.|\n)*\x1b\[K  1 of \1\x1b8", output)
    assert "\x1b[31m" in output
    assert "✖1" in output
    assert re.search(r"  ddp *\x1b\[0m\x1b\[1m  fsdp2", output)


@pytest.mark.parametrize(
    ("words", "variables"),
    [((), {"NO_COLOR": "1"}), (("--color=no",), {}), ((), {"TERM": "dumb"})],
    ids=["NO_COLOR", "--color=no", "dumb"],
)
def test_terminal_without_colours(
    through: Callable[..., str], words: tuple[str, ...], variables: dict[str, str]
) -> None:
    output = through(*FEW, *words, **variables)

    assert not re.search(r"\x1b\[[\d;]+m", output)
    assert ("\x1b" in output) == ("TERM" not in variables)


def test_terminal_that_is_asked_to_be_quiet(through: Callable[..., str]) -> None:
    output = through(*FEW, "-q")

    assert " of " not in output.partition("FAILURES")[0]
    assert "fsdp2  " not in output
    assert "torch here on cpu: " in output


def test_pipe_gets_plain_text_a_block_for_a_failure_and_the_matrix(suite: Suite) -> None:
    ran = suite(*FEW, PYTHONIOENCODING="ascii", DISTPARITY_NOTE="a note")

    assert "\x1b" not in ran.output
    assert ran.output.isascii()
    assert "  DISTPARITY_NOTE=a note" in ran.output
    assert re.search(r"distparity: torch \S+ \(git [0-9a-f]{40}\)", ran.output)
    block = ran.output.partition("wrong_local-ws2-float32 on cpu")[2].partition("\n=====")[0]
    assert block.lstrip(" _\n").startswith("failed: local gradients, not reduced at all: ")
    assert "\nstep 0, gradient" in block
    assert "short test summary" not in ran.output
    *_, before, last = block.rstrip().splitlines()
    assert before == "to rerun:"
    assert last.startswith("distparity run --device cpu --case")
    assert "\nF failed\n" in ran.output


MANY = ("-k", "multiple_forward and float32 and (ddp or fsdp or wrong)")


@pytest.mark.parametrize("words", [("-x", *MANY), FEW[-2:]], ids=["stopped", "whole"])
def test_counts_at_the_end_are_those_of_the_xml(suite: Suite, words: tuple[str, ...]) -> None:
    ran = suite(*WORDS, *words, "--worlds", "2")
    (line,) = re.findall(r"torch here on cpu: (\d+) cases, (.*); worst ratio", ran.output)
    number, counts = line

    found = Counter(ran.statuses("here-cpu").values())
    assert ("missing" in found) == ("-x" in words)
    assert int(number) == found.total()
    said = {status: int(count) for count, status in re.findall(r"(\d+) ([a-z ]+)", counts)}
    assert said == found


def test_header_shows_no_secret(suite: Suite) -> None:
    ran = suite(*WORDS, "--collect-only", DISTPARITY_INDEX_TOKEN="swordfish")

    assert "swordfish" not in ran.output
    assert "DISTPARITY_INDEX_TOKEN=[$DISTPARITY_INDEX_TOKEN]" in ran.output


FILLING = """
import pytest
from distparity.pytest_plugin.plugin import FullLines

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    config.pluginmanager.register(FullLines(config.pluginmanager.getplugin("terminalreporter")))
"""


@pytest.mark.parametrize("marks", range(61, 63))
def test_a_line_that_is_full_of_marks_is_followed_by_no_empty_one(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, marks: int
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pytester.makeconftest(FILLING)
    body = "import pytest\n@pytest.mark.parametrize('n', range({}))\ndef test(n): pass\n"
    pytester.makepyfile(test_a=body.format(marks), test_b=body.format(1))

    said = pytester.runpytest_inprocess("-p", "no:cacheprovider").outlines
    lines = said[said.index(f"collected {marks + 1} items") + 2 :]
    assert [line[:10] for line in lines if "%]" in line] == ["test_a.py ", "test_b.py "]
    assert "" not in lines[:2]


# -- the causes behind the counts ------------------------------------------------------------------

FOUND = DeviceFacts(
    "cpu", 1, None, "a CPU", "gloo", "1", {}, (), {}, {}, start_seconds=1.0, exclusive=False
)


def _ended(*found: tuple[str, Outcome]) -> Cell:
    """A cell in which the cases had these outcomes; the cases are ``NAME/ddp`` in two ranks."""
    cases = [Case(name, "ddp", 2, "float32", "cpu") for name, _ in found]
    outcomes = {case.id: outcome for case, (_, outcome) in zip(cases, found, strict=True)}
    return Cell("2.13", "cpu", FOUND, cases=cases, outcomes=outcomes)


def _failed(diagnosis: str = "") -> Outcome:
    facts = {"diagnosis": diagnosis} if diagnosis else {}
    message = "step 1, gradient 'w', rank 0: off by 1 (ratio 3)"
    return Outcome(Status.FAILED, message, facts=facts, failure="wrong numbers")


def _causes(*found: tuple[str, Outcome]) -> list[str]:
    return list(summary.causes(_ended(*found), lambda cases: f"run {len(cases)}"))


SUMMED = _failed("gradients summed, not averaged")
CAUSES = {
    "one diagnosis": (
        [("a", SUMMED), ("b", SUMMED)],
        ["  2 failed: gradients summed, not averaged (ddp, float32): a/ddp-ws2-float32, b/ddp-ws2-float32", "    run 2"],
    ),
    "the most frequent first": (
        [("a", _failed()), ("b", SUMMED), ("c", SUMMED)],
        [
            "  2 failed: gradients summed, not averaged (ddp, float32): b/ddp-ws2-float32, c/ddp-ws2-float32",
            "    run 2",
            "  1 failed: wrong gradient, first at step 1 (ddp, float32): a/ddp-ws2-float32",
            "    run 1",
        ],
    ),
    "more cases than a line has room for": (
        [(name, SUMMED) for name in "abcde"],
        [
            (
                "  5 failed: gradients summed, not averaged (ddp, float32): a/ddp-ws2-float32, b/ddp-ws2-float32, "
                "c/ddp-ws2-float32, d/ddp-ws2-float32 and 1 more"
            ),
            "    run 5",
        ],
    ),
    "one fault in worlds of two sizes": (
        [(name, _failed(f"gradients summed: a factor of the world size, {size}")) for name, size in (("a", 2), ("b", 4))],
        [
            (
                "  2 failed: gradients summed: a factor of the world size, N (ddp, float32): "
                "a/ddp-ws2-float32, b/ddp-ws2-float32"
            ),
            "    run 2",
        ],
    ),
    "one exception in worlds of two sizes": (
        [
            (name, Outcome(Status.FAILED, f"rank {rank} raised KeyError: 'x'; the same on {others}"))
            for name, rank, others in (("a", 0, "rank 1"), ("b", 2, "ranks 0, 1, 3"))
        ],
        [
            "  2 failed: rank N raised KeyError: 'x' (ddp, float32): a/ddp-ws2-float32, b/ddp-ws2-float32",
            "    run 2",
        ],
    ),
    "what torch refuses, without its own words": (
        [
            (name, Outcome(Status.NOT_SUPPORTED, f"fsdp2: no CPU: torch 2.4.1 says RuntimeError: {name}"))
            for name in "ab"
        ],
        ["  2 not supported: fsdp2: no CPU"],
    ),
    "known defects by their reason": (
        [("a", Outcome(Status.EXPECTED, "wrong numbers: it halves (link)", facts={"reason": "it halves"}))],
        ["  1 expected failure: it halves"],
    ),
    "what passed has no cause": ([("a", Outcome(Status.PASSED, "ratio 0.1"))], []),
}  # fmt: skip


@pytest.mark.parametrize(("found", "lines"), CAUSES.values(), ids=CAUSES)
def test_cases_of_one_cause_are_one_line(
    found: list[tuple[str, Outcome]], lines: list[str]
) -> None:
    assert _causes(*found) == lines


def test_rare_causes_are_counted() -> None:
    refused = [(f"s{n}", Outcome(Status.NOT_SUPPORTED, f"fact {chr(65 + n)}")) for n in range(20)]

    assert _causes(*refused)[12:] == ["  and 8 more causes; -rA lists them"]
    assert len(list(summary.causes(_ended(*refused), lambda _: "", every=True))) == 20


def test_the_worst_ratio_is_of_trainings() -> None:
    operation = Outcome(Status.PASSED, facts={"ratio": "1", "checks": 3})
    known = Outcome(Status.EXPECTED, facts={"ratio": "1e6"})
    trained = Outcome(Status.PASSED, facts={"ratio": "0.25"})

    line = summary.counts(_ended(("all_reduce", operation), ("known", known), ("basic", trained)))

    assert line.endswith("3 cases, none run; worst ratio 0.25 (basic/ddp-ws2-float32)")


def test_a_run_looks_the_same_wherever_it_is_started(
    tmp_path: Path, distparity: Distparity
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "-ra -q"\n')
    (tmp_path / "conftest.py").write_text("raise RuntimeError\n")
    case = "checkpoint_reentrant/ddp-ws2-float32"
    words = run_words("--device", "cpu", "--cell", "here", "--case", case)
    found = distparity(*words, cwd=tmp_path)

    assert "SKIPPED" not in found.stdout
    assert f"rootdir: {tmp_path}" in found.stdout
    assert "  1 not supported: ddp: reentrant checkpoints" in found.stdout


@pytest.mark.parametrize(
    ("asked", "ran", "words"),
    [
        ([2, 4], [4], ""),
        ([2], [2], ""),
        ([4], [4], ""),
        ([2, 3], [3], " --world-size 3"),
        ([4, 8], [4, 8], " --world-size 4,8"),
    ],
    ids=["the usual", "pairs", "larger alone", "another size", "larger ones"],
)
def test_a_command_that_runs_cases_again_has_their_world_sizes(
    asked: list[int], ran: list[int], words: str
) -> None:
    cases = [Case("dtensor_losses", "shard", size, "float32", "cpu") for size in ran]
    options = Options(devices=["cpu"], world_sizes=asked, known_defects=True)

    named = "".join(f" --case {case.id}" for case in cases)
    assert wording.rerun(cases, options, {}) == f"distparity run --device cpu{named}{words}"


SIZES = {
    "all right": ((), ["SUM       a", "right as well: MIN, MAX"]),
    "one is wrong": (("MIN",), ["SUM       a", "MIN       b", "right as well: MAX"]),
    "the first is wrong": (("SUM",), ["SUM       a", "MIN       b", "right as well: MAX"]),
    "all wrong": (("SUM", "MIN", "MAX"), ["SUM       a", "MIN       b", "MAX       c"]),
}


@pytest.mark.parametrize(("wrong", "shown"), SIZES.values(), ids=SIZES)
def test_sizes_have_the_first_that_is_right_and_all_that_are_wrong(
    wrong: tuple[str, ...], shown: list[str]
) -> None:
    cases = [Case("sizes_all_reduce", "wait", size, "float32", "cpu") for size in (2, 4)]
    told = {"SUM": "a", "MIN": "b", "MAX": "c"}
    outcomes = {cases[0].id: Outcome(Status.PASSED, facts={"sizes": told}, diverged=wrong)}
    cell: Any = SimpleNamespace(cases=cases, outcomes=outcomes)

    found = [line.removeprefix(f"  {cases[0].id}").strip() for line in summary.sizes(cell)]
    assert found == shown
