"""The suite can fail: deliberate faults are caught, and a fault that is not would be told."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import TESTS, Distparity

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.core.torch_facts import MutantFacts
from distparity.session import calibration
from distparity.session.selfcheck import Finding, SelfCheck, in_turn, table


def mutant(*diagnosis: str, equivalent: str | None = None) -> MutantFacts:
    return MutantFacts(
        title="",
        diagnosis=diagnosis,
        equivalent=equivalent,
        size=None,
        needs=None,
        sharded=None,
        exchange=True,
        at_step=0,
        spares_first=False,
    )


MUTANTS = {"blunt": mutant("summed"), "same": mutant(equivalent="nothing changes")}
CAUGHT = Outcome(Status.FAILED, facts={"ratio": 9.0, "diagnosis": "gradients summed"})
PASSED = Outcome(Status.PASSED, facts={"ratio": 0.1})


def found(*findings: tuple[str, str, Outcome]) -> SelfCheck:
    return SelfCheck(
        "2.13",
        MUTANTS,
        [Finding(m, Case("basic", s, 2, "float32", "cpu"), o, "float32") for m, s, o in findings],
    )


@pytest.mark.parametrize(
    ("findings", "passed", "says"),
    [
        pytest.param([("blunt", "ddp", CAUGHT)], True, "caught       blunt", id="caught"),
        pytest.param(
            [("blunt", "ddp", CAUGHT), ("blunt", "fsdp2", PASSED)],
            False,
            "MISSED: blunt under fsdp2 with 2 ranks in float32",
            id="missed under one strategy",
        ),
        pytest.param(
            [("blunt", "ddp", Outcome(Status.FAILED, facts={"diagnosis": "stale"}))],
            False,
            "WRONG DIAGNOSIS: blunt in basic/ddp-ws2-float32: stale",
            id="wrong diagnosis",
        ),
        pytest.param(
            [("blunt", "ddp", Outcome(Status.CRASH))], True, "caught       blunt", id="crash"
        ),
        pytest.param(
            [("blunt", "ddp", CAUGHT), ("same", "ddp", PASSED)], True, "equivalent", id="same"
        ),
        pytest.param(
            [("same", "ddp", CAUGHT)], False, "NOT EQUIVALENT: same", id="claim disproved"
        ),
        pytest.param([("same", "ddp", PASSED)], False, "NO EVIDENCE: basic / ddp", id="blind pair"),
        pytest.param(
            [("blunt", "ddp", Outcome(Status.ERROR, "no oracle"))],
            False,
            "NOT JUDGED: blunt in basic/ddp-ws2-float32: no oracle",
            id="not judged",
        ),
        pytest.param([], False, "not tried", id="nothing tried"),
    ],
)
def test_findings(findings: list[tuple[str, str, Outcome]], passed: bool, says: str) -> None:
    check = found(*findings)

    assert check.passed is passed
    assert says in "\n".join(table(check))


OTHER_WORLDS = {
    "another world size": (Case("basic", "ddp", 4, "float32", "cpu"), "float32"),
    "another precision": (Case("mixed", "ddp", 2, "float32", "cpu"), "float32 (bfloat16)"),
}


@pytest.mark.parametrize(("case", "precision"), OTHER_WORLDS.values(), ids=list(OTHER_WORLDS))
def test_a_fault_must_be_caught_in_every_world_size_and_precision(
    case: Case, precision: str
) -> None:
    check = found(("blunt", "ddp", CAUGHT))
    check.findings.append(Finding("blunt", case, PASSED, precision))

    assert check.missed() == [("blunt", "ddp", case.world_size, precision)]


def test_scenarios_are_tried_until_one_catches_the_fault() -> None:
    seen_by = {"ddp": "c", "fsdp2": ""}
    todo = [
        (Case(scenario, strategy, 2, "float32", "cpu"), name)
        for scenario in "abcd"
        for strategy in seen_by
        for name in MUTANTS
    ]
    check = found()
    rounds = []

    for tried in in_turn(todo, check, lambda _: "float32"):
        rounds.append([(case.scenario, case.strategy, name) for case, name in tried])
        for case, name in tried:
            caught = name == "blunt" and case.scenario in seen_by[case.strategy]
            check.findings.append(Finding(name, case, CAUGHT if caught else PASSED, "float32"))

    both = [[(one, "ddp", "blunt"), (one, "fsdp2", "blunt")] for one in "abc"]
    ran = {(one, how) for one in "abc" for how in seen_by} | {("d", "fsdp2")}
    assert rounds[:4] == [*both, [("d", "fsdp2", "blunt")]]
    # What is equivalent runs in every case that another ran in.
    assert set(rounds[4]) == {(*one, "same") for one in ran}
    assert check.missed() == [("blunt", "fsdp2", 2, "float32")]


@pytest.fixture(scope="module")
def some(
    tmp_path_factory: pytest.TempPathFactory, distparity: Distparity
) -> subprocess.CompletedProcess[str]:
    names = ("sum_not_mean", "stale_gather", "one_element", "second_forward_lost")
    words = [word for name in names for word in ("--mutant", name)]
    words = ["--pairs", "--device", "cpu", "--scenario", "multiple_forward", *words]
    return distparity("selfcheck", *words, cwd=tmp_path_factory.mktemp("some"))


@pytest.mark.parametrize(
    "mutant", ["sum_not_mean", "stale_gather", "one_element", "second_forward_lost"]
)
def test_mutant_is_caught_in_real_ranks(
    some: subprocess.CompletedProcess[str], mutant: str
) -> None:
    assert some.returncode == 0, some.stdout + some.stderr
    assert re.search(rf"^caught +{mutant} ", some.stdout, re.MULTILINE)
    assert "multiple_forward / fsdp2: catches 4 of 4" in some.stdout


def test_readme_states_the_number_of_mutants(some: subprocess.CompletedProcess[str]) -> None:
    (total,) = re.findall(r"torch \S+: (\d+) mutants", some.stdout)
    equivalent = len(re.findall(r"^equivalent ", some.stdout, re.MULTILINE))
    text = re.sub(r"\s+", " ", (Path(TESTS).parent / "README.md").read_text())

    assert f"puts {total} deliberate faults" in text
    assert f"{int(total) - equivalent} are caught under every strategy" in text
    assert f"and {equivalent} change nothing observable" in text


def test_explain_shows_where_it_began_and_draws_it(tmp_path: Path, distparity: Distparity) -> None:
    case = "basic/fsdp1-ws2-float32"

    words = ["--device", "cpu", "--mutant", "dropped_rank", "--plot", str(tmp_path / "plot.svg")]
    done = distparity("explain", case, *words, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stdout.startswith(f"{case}: failed: step 1, gradient '")
    assert "looks like: rank 1's contribution missing from the sum" in done.stdout
    assert (tmp_path / "plot.svg").read_text().startswith("<svg ")


def test_calibration_tells_the_largest_ratio(tmp_path: Path, distparity: Distparity) -> None:
    kept, drawn = tmp_path / "runs.jsonl", tmp_path / "plot.svg"
    words = [
        "--device",
        "cpu",
        "--seeds",
        "1",
        "--world-size",
        "2",
        "--select",
        "quick",
        "--keep",
        str(kept),
    ]

    done = distparity("calibrate", *words, "--plot", str(drawn), cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(
        r"\| (\w*float\d\d[^|]*) \| 2 \| 1 \| (\d+) \| [\d.]+ \| [\d.]+ \| ([\d.]+) \|",
        done.stdout,
    )
    assert {"float32", "float32 (bfloat16)", "float32 (float16)"} == {row[0] for row in rows}
    assert all(0 < float(row[2]) < 0.5 for row in rows)
    assert len(kept.read_text().splitlines()) == sum(int(row[1]) for row in rows)
    assert drawn.read_text().startswith("<svg ")


def test_calibration_counts_what_a_file_has_from_before(tmp_path: Path) -> None:
    kept = tmp_path / "runs.jsonl"
    seen = {
        "torch": "1.0",
        "case": "a/b-ws2-float32",
        "precision": "float32 (float16)",
        "world_size": 2,
        "seed": 3,
    }
    ratios = [0.125, 0.375, 0.25]
    lines = [{**seen, "status": "passed", "message": "", "ratio": ratio} for ratio in ratios]
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines))

    (bucket,) = calibration.buckets(calibration.before(kept, "1.0"))

    assert bucket.passed
    assert (
        "| 1.0 | float32 (float16) | 2 | 1 | 3 | 0.250 | 0.375 | 0.375 |"
        in calibration.table("1.0", [bucket])[2]
    )
    assert calibration.plot("1.0", [bucket]).count("<title>1 runs</title>") == 3
    with pytest.raises(ValueError, match=r"has runs of torch 1\.0, not 2\.0"):
        calibration.before(kept, "2.0")


def test_every_scenario_has_its_turn_in_every_world_size() -> None:
    pools = {
        kind: {
            name: {ranks: [Case(name, "ddp", ranks, "float32", "cpu")] for ranks in (2, 4, 8)}
            for name in names
        }
        for kind, names in {"float32": "abcde", "bfloat16": "xyz"}.items()
    }

    had = [
        [(case.scenario, case.world_size) for case in calibration.in_turn(pools, seed)]
        for seed in range(15)
    ]

    assert all(len(cases) == len(pools) for cases in had)
    seen = {case for cases in had for case in cases}
    assert seen == {(name, ranks) for name in "abcdexyz" for ranks in (2, 4, 8)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explain", "basic/none"], "unknown case 'basic/none'"),
        (
            ["explain", "basic/ddp-ws2-float32", "--mutant", "x"],
            "unknown mutant 'x'; known: control, sum_",
        ),
        (["selfcheck", "--device", "gpu"], "unknown device 'gpu'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_request_is_one_clear_error(
    tmp_path: Path, distparity: Distparity, words: list[str], message: str
) -> None:
    done = distparity(*words, cwd=tmp_path)

    assert done.returncode == 4
    assert done.stderr.startswith(f"distparity: {message}")
