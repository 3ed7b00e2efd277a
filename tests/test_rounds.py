"""Rounds: the cases again and again, in another order and with other data."""

from __future__ import annotations

import re
from itertools import islice
from types import SimpleNamespace

import pytest
from conftest import Suite

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.session import arguments
from distparity.session.rounds import Plan, Rounds, duration

CASES = [Case(f"s{number}", "ddp", 2, "float32", "cpu") for number in range(20)]
PASSED = Outcome(Status.PASSED, "ratio 0.1", facts={"ratio": 0.1})
FAILED = Outcome(Status.FAILED, "step 0 is wrong", facts={"ratio": 7.0}, failure="wrong numbers")


def test_a_round_is_decided_by_the_seed_and_its_number() -> None:
    plan = Plan(5)

    orders = [plan.order(CASES, number) for number in (0, 1)]

    assert orders == [Plan(5).order(CASES, number) for number in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(map(str, orders[0])) == sorted(map(str, CASES))
    assert len({Plan(seed).data(number) for seed in range(3) for number in range(3)}) == 9


@pytest.mark.parametrize(
    ("plan", "numbers"),
    [
        (Plan(1, 3), [0, 1, 2]),
        (Plan(1, 1, first=7), [7]),
        (Plan(1, seconds=1e-9), [0]),
        (Plan(1, 5, seconds=1e9), [0, 1, 2, 3, 4]),
        (Plan(1), list(range(9))),
    ],
    ids=["repeat", "replay", "soak ends", "repeat before soak ends", "no end"],
)
def test_which_rounds_are_made(plan: Plan, numbers: list[int]) -> None:
    assert list(islice(Rounds(plan), 9)) == numbers


def test_until_failure_ends_after_the_round_that_fails() -> None:
    rounds = Rounds(Plan(1, until_failure=True))

    made = []
    for number in rounds:
        made.append(number)
        rounds.add(CASES[0], FAILED if number == 2 else PASSED)

    assert made == [0, 1, 2]


def test_one_failure_of_many_rounds_is_a_failure_and_says_how_often() -> None:
    rounds = Rounds(Plan(9, 5))

    news = []
    for number in rounds:
        outcome, new = rounds.add(CASES[0], FAILED if number in (2, 3) else PASSED)
        news.append(new)

    assert outcome.status is Status.FAILED
    assert outcome.message == (
        "2 of 5 rounds failed, first round 2 of --shuffle=9: step 0 is wrong"
    )
    assert "--shuffle=9 --round=2" in outcome.detail
    assert {
        "rounds": 5,
        "rounds_failed": 2,
        "first_failed_round": 2,
    }.items() <= outcome.facts.items()
    assert news == [True, False, True, False, False]
    assert rounds.failed() == [CASES[0]]


def test_rounds_that_pass_keep_the_largest_ratio() -> None:
    rounds = Rounds(Plan(9, 3))

    for number in rounds:
        outcome, _ = rounds.add(CASES[0], Outcome(Status.PASSED, facts={"ratio": 0.1 * number}))

    assert outcome.facts == {"ratio": 0.2, "rounds": 3, "rounds_failed": 0}


@pytest.mark.parametrize(
    ("words", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)]
)
def test_duration(words: str, seconds: float) -> None:
    assert duration(words) == seconds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"soak": "2 weeks"}, "--soak '2 weeks': it must be a duration"),
        ({"soak": "0s"}, "it must be a duration"),
        ({"repeat": 0}, "--repeat 0: it must be at least 1"),
        ({"shuffle": "x"}, "--shuffle=x: the seed must be a whole number"),
        ({"round": 3}, "--round R needs --shuffle=SEED"),
        ({"round": 3, "shuffle": "1", "repeat": 2}, "--round R needs"),
        ({"repeat": 2, "resume": True}, "neither --resume nor --retry-failed"),
    ],
    ids=["soak", "no time", "repeat", "shuffle", "round", "round of many", "resume"],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], said: str) -> None:
    nothing = dict.fromkeys(("device", "soak", "repeat", "shuffle", "round"))

    with pytest.raises(BadRequest, match=re.escape(said)):
        arguments.options(SimpleNamespace(**{**nothing, "until_failure": False, **given}))


def test_the_command_in_a_failure_replays_the_round(suite: Suite) -> None:
    case = "basic/sometimes-ws2-float32"
    words = ["--device", "cpu", "--include", "sometimes", "--case", case]

    ran = suite(*words, "--case", "basic/ddp-ws2-float32", "--repeat", "6", "--shuffle=3")

    facts = ran.properties("here-cpu")
    assert facts["basic/ddp-ws2-float32"]["rounds"] == "6"
    assert facts["basic/ddp-ws2-float32"]["status"] == "passed"
    failed, first = int(facts[case]["rounds_failed"]), facts[case]["first_failed_round"]
    assert 0 < failed < 6
    assert f"{failed} of 6 rounds failed" in ran.output
    (command,) = set(re.findall(rf"^distparity run (.*{case}.*)$", ran.output, re.MULTILINE))
    again = suite(*command.split())
    assert again.properties("here-cpu")[case]["first_failed_round"] == first
    assert "1 of 1 rounds failed" in again.output
