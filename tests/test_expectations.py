"""What is expected to fail: the files' schema, what they mean, and real runs under them."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import cells
import pytest
from conftest import Ran, Suite

from distparity import cli
from distparity.core.case import Case
from distparity.core.judgement import Divergence, Quantity
from distparity.core.outcome import Outcome, Status
from distparity.core.torch_facts import TorchFacts
from distparity.expectations import SHIPPED, Names, Surroundings, Wrong, assign, check, load
from distparity.expectations.file import files_of, parse
from distparity.expectations.propose import Failed, propose

ROOT = Path(__file__).parents[1]
TODAY = date(2026, 6, 1)
#: An entry that is right, a line a key.
RIGHT = {
    "scenario": '"resume"',
    "device": '"cpu"',
    "torch": '">=2.7,<2.9"',
    "failure": '"wrong numbers"',
    "diagnosis": '"^summed"',
    "reason": '"torch sums"',
    "link": '"https://example.org/1"',
}
FACTS = {"device_name": "Max 1550", "backend_version": "2021.15", "torch": "2.8.0+cu128"}
HERE = Surroundings("2.8.0+cu128", ("accelerator", "cpu"), FACTS)
CASES = [
    Case(scenario, strategy, size, dtype, "cpu")
    for scenario in ("basic", "resume")
    for strategy in ("ddp", "fsdp2")
    for size in (2, 4)
    for dtype in ("float32", "float64")
]


def entry(**changes: str | None) -> str:
    """The text of :data:`RIGHT` with other values; without those that are None."""
    keys = {**RIGHT, **changes}
    return "\n".join(["[[expect]]", *(f"{k} = {v}" for k, v in keys.items() if v is not None), ""])


def named(*ids: str, **changes: str | None) -> str:
    """An entry on cases by their ids."""
    return entry(scenario=None, cases=repr(list(ids)).replace("'", '"'), **changes)


# -- the schema ----------------------------------------------------------------------------------

WRONG = {
    "syntax": ("[[expect]\n", r"at line 1"),
    "unknown table": ("[entry]\n", r"unknown key 'entry'"),
    "inline": ("expect = [{reason = 'x'}]\n", r"begin with its own line \[\[expect\]\]"),
    "unknown key": (entry(because='"x"'), r":1: unknown key 'because'; known: cases, "),
    "second entry": (entry() + "\n" + entry(because='"x"'), r":10: unknown key 'because'"),
    "no reason": (entry(reason=None), r":1: it has no reason"),
    "empty reason": (entry(reason='""'), r":1: reason: it is empty"),
    "blank reason": (entry(reason='"  "'), r":1: reason: it must be a string that is not empty"),
    "no link": (entry(link=None), r":1: it has no link"),
    "link that is none": (entry(link='"ask Jo"'), r":1: link: 'ask Jo' is not a URL"),
    "link to run": (entry(link='"javascript:alert(1)"'), r":1: link: .* is not a URL"),
    "no torch": (entry(torch=None), r":1: it has no torch"),
    "bad range": (entry(torch='"2.8"'), r":1: torch: '2.8' is not a range of versions"),
    "no device": (entry(device=None), r":1: it has no device"),
    "no failure": (entry(failure=None), r":1: it has no failure"),
    "unknown failure": (
        entry(failure='"odd"'),
        r":1: failure: 'odd' is not one of wrong numbers, ",
    ),
    "no case": (entry(scenario=None), r":1: it names no case"),
    "cases and patterns": (entry(cases='["a/b"]'), r":1: it has both cases \(exact ids\) and"),
    "pattern as an id": (named("resume/*"), r":1: cases: 'resume/\*' is not a case id"),
    "empty list": (entry(strategy="[]"), r":1: strategy: it is empty"),
    "no world": (entry(world_size="0"), r":1: world_size: it must be a number of ranks"),
    "deep nesting": (entry(strategy="[" * 100_000 + "]" * 100_000), r"nested too deeply"),
    "deep regex": (
        entry(diagnosis='"' + "(" * 10_000 + ")" * 10_000 + '"'),
        r":1: diagnosis: |deeply",
    ),
    "bad regex": (entry(diagnosis='"("'), r":1: diagnosis: "),
    "regex of everything": (entry(diagnosis='".*"'), r"'\.\*' matches everything"),
    "numbers without a sign": (entry(diagnosis=None), r":1: wrong numbers: it needs diagnosis or"),
    "numbers with an error": (
        entry(error='"SIGABRT"'),
        r":1: error does not apply to wrong numbers",
    ),
    "crash without an error": (
        entry(failure='"crash"', diagnosis=None),
        r":1: crash: it needs error",
    ),
    "several failures, and no reason": (
        entry(failure='["crash", "raised"]', diagnosis=None, error='"SIGABRT"'),
        r":1: several failures are for crash, raised, timeout, and need undefined",
    ),
    "several failures, one with numbers": (
        entry(failure='["crash", "wrong numbers"]', undefined='"a race"'),
        r":1: several failures are for crash, raised, timeout",
    ),
    "several failures without an error": (
        entry(failure='["timeout", "crash"]', diagnosis=None, undefined='"a race"'),
        r":1: crash: it needs error",
    ),
    "numbers not run": (entry(not_run="true"), r":1: not_run is for a crash or a timeout"),
    "not run sometimes": (
        entry(failure='"timeout"', diagnosis=None, not_run="true", sometimes="true"),
        r":1: sometimes and not_run exclude",
    ),
    "not_run in words": (entry(not_run='"yes"'), r":1: not_run: it must be true or false"),
    "date in quotes": (
        entry(expires='"2027-01-01"'),
        r":1: expires: it must be a date without quotes",
    ),
    "past its date": (entry(expires="2026-05-31"), r":1: it expired on 2026-05-31"),
    "bad program": (entry(program='"/bin/sh"'), r":1: program: '/bin/sh' is not a program"),
    "bad fact": (entry(facts="{backend_version = '>x'}"), r":1: facts: '>x' is not a range"),
}


@pytest.mark.parametrize(("text", "complaint"), WRONG.values(), ids=WRONG)
def test_wrong_file_is_refused_with_its_name_and_line(text: str, complaint: str) -> None:
    with pytest.raises(Wrong, match=complaint) as caught:
        parse(text, "vendor.toml", TODAY)
    assert str(caught.value).startswith("vendor.toml:")


@pytest.mark.parametrize(
    "text",
    [
        entry(),
        entry(expires="2026-06-01"),
        entry(failure='"timeout"', diagnosis=None, not_run="true"),
        entry(failure='"crash"', diagnosis=None, error='"SIGABRT"', not_run="true"),
        entry(diagnosis=None, quantity='"gradient"'),
        named("resume/fsdp2-ws2-float32", program='"defects/x.py"'),
        "# nothing is expected\n",
    ],
    ids=["numbers", "last day", "timeout", "crash", "quantity", "ids", "empty"],
)
def test_right_file(text: str) -> None:
    assert len(parse(text, "vendor.toml", TODAY)) == text.count("[[expect]]")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Wrong, match=r"no\.toml: cannot be read"):
        load([tmp_path / "no.toml"])


AT = "step 0, gradient 'w', rank 0: off by 1"


def wrong(
    diagnosis: str | None = None, *, kind: str = "gradient", step: int = 0, diverged: str = ""
) -> Outcome:
    """A case with wrong numbers: what they look like, and where, or in which checks, they began."""
    first = Divergence(Quantity(step, kind, "w"), 0, "off by 1")
    return Outcome(
        Status.FAILED,
        AT,
        facts={"ratio": 12.0} if diagnosis is None else {"ratio": 12.0, "diagnosis": diagnosis},
        failure="wrong numbers",
        first=first,
        diverged=tuple(diverged.split("; ")) if diverged else (),
    )


#: What checks say, what diverged, and what a failure is then.
CHECKED = {
    "these": ('["a*", "b"]', "a 1; b; a 2", Status.EXPECTED),
    "one less": ('["a*", "b"]', "a 1", Status.FAILED),
    "another": ('["a*"]', "a 1; b", Status.FAILED),
}


@pytest.mark.parametrize(("checks", "diverged", "status"), CHECKED.values(), ids=CHECKED)
def test_checks_are_all_that_diverged(checks: str, diverged: str, status: Status) -> None:
    (one,) = parse(entry(diagnosis=None, checks=checks), "x", TODAY)

    assert one.judge(wrong(diverged=diverged)).status is status


def checked(*checks: str, **changes: str | None) -> str:
    """An entry on checks of one case."""
    words = repr(list(checks)).replace("'", '"')
    return named("resume/ddp-ws2-float32", diagnosis=None, checks=words, **changes)


def test_entries_that_know_other_checks_of_a_case_are_one() -> None:
    (one,) = assign(parse(checked("a") + checked("b"), "x", TODAY), HERE, CASES).values()

    assert one.checks == ("a", "b")
    assert one.where == "x:1 and x:9"


MEET = {
    "the same": ("gather columns", "gather columns"),
    "within": ("gather*", "gather columns"),
    "across": ("gather*", "*columns"),
    "one sign": ("gather ?", "gather [a-c]"),
    "sets": ("[!a-c]", "[b-d]"),
}


@pytest.mark.parametrize(("one", "other"), MEET.values(), ids=MEET)
def test_entries_with_a_check_in_common_are_two_on_one_case(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        entries = parse(checked("x", first) + checked(second, "y"), "x", TODAY)
        with pytest.raises(Wrong, match=r"^x:1 and x:9: two entries for one case: resume/ddp-ws2"):
            assign(entries, HERE, CASES)


APART = [("a", "b"), ("a*", "b*"), ("a?", "a"), ("[ab]", "[cd]"), ("[!a-c]", "[a-c]"), ("*a", "*b")]


@pytest.mark.parametrize(("one", "other"), APART, ids=map(str, APART))
def test_entries_without_a_check_in_common_stand_side_by_side(one: str, other: str) -> None:
    assert assign(parse(checked(one) + checked(other), "x", TODAY), HERE, CASES)


#: Beside an entry that knows ``a``, whose failure always shows: another's keys, what diverged, what
#: diverged first, and what comes of it.
BESIDE: dict[str, tuple[dict[str, str | None], str, str, Status]] = {
    "both": ({}, "a; b", "a", Status.EXPECTED),
    "one": ({}, "a", "a", Status.FAILED),
    "one, as it sometimes is": ({"sometimes": "true"}, "a", "a", Status.EXPECTED),
    "both, as they sometimes are": ({"sometimes": "true"}, "a; b; b2", "a", Status.EXPECTED),
    "a part of what is sometimes": ({"sometimes": "true"}, "a; b", "a", Status.FAILED),
    "without the one that always is": ({"sometimes": "true"}, "b; b2", "b", Status.FAILED),
    "nothing": ({"sometimes": "true"}, "", "", Status.FIXED),
    "look of the first": ({"quantity": '"step 0, b"'}, "a; b", "a", Status.EXPECTED),
    "look of the other": ({"quantity": '"step 0, c"'}, "b; a", "b", Status.FAILED),
}


@pytest.mark.parametrize(("changes", "diverged", "first", "status"), BESIDE.values(), ids=BESIDE)
def test_each_entry_of_a_case_is_held_to_its_own_keys(
    changes: dict[str, str | None], diverged: str, first: str, status: Status
) -> None:
    others = ["b", "b2"] if "sometimes" in changes else ["b"]
    always = checked("a", expires="2026-08-01", facts="{device_name = 'Max *'}")
    text = always + checked(*others, **changes)
    for entries in (parse(text, "x", TODAY), parse(text, "x", TODAY)[::-1]):
        (one,) = assign(entries, HERE, CASES).values()
        judged = one.judge(
            wrong(kind=first, diverged=diverged) if diverged else Outcome(Status.PASSED)
        )

        assert judged.status is status
        assert one.expires == date(2026, 8, 1)
        assert one.facts == {"device_name": "Max *"}
        if status is Status.FIXED:
            assert judged.message == "fixed: remove this entry: x:1 (torch sums)"


# -- which cases -----------------------------------------------------------------------------------

MEANT = {
    "id": (named("resume/ddp-ws2-float32"), ["resume/ddp-ws2-float32"]),
    "all parts": (
        entry(strategy='"fsdp*"', world_size="4", dtype='"float64"'),
        ["resume/fsdp2-ws4-float64"],
    ),
    "left out": (
        entry(scenario='["*", "!basic"]', strategy='"!ddp"', world_size="2", dtype='"float32"'),
        ["resume/fsdp2-ws2-float32"],
    ),
    "world that nobody asked for": (named("resume/ddp-ws8-float32", torch='">=3"'), []),
    "other torch": (entry(torch='"<2.8"'), []),
    "other torch, and no such case": (entry(torch='"<2.8"', scenario='"gone"'), []),
    "other device": (entry(device='"xpu"'), []),
    "device by another name": (
        named("basic/ddp-ws2-float32", device='"accel*"'),
        ["basic/ddp-ws2-float32"],
    ),
    "fact": (
        named("basic/ddp-ws2-float32", facts="{device_name = 'Max *', backend_version = '<2022'}"),
        ["basic/ddp-ws2-float32"],
    ),
    "other fact": (named("basic/ddp-ws2-float32", facts="{backend_version = '>=2022'}"), []),
}


@pytest.mark.parametrize(("text", "ids"), MEANT.values(), ids=MEANT)
def test_cases_that_are_meant(text: str, ids: list[str]) -> None:
    assert sorted(assign(parse(text, "x", TODAY), HERE, CASES)) == ids


@pytest.mark.parametrize(
    ("version", "within"),
    [
        ("2.7.0", True),
        ("2.8.0a0+git1234567", True),
        ("2.8.0.dev20250601+cpu", True),
        ("2.9.0", False),
        ("2.9.0.dev20250801", False),
        ("2.6.0+cu124", False),
    ],
)
def test_torch_by_its_public_version(version: str, within: bool) -> None:
    there = Surroundings(version, ("cpu",), FACTS)
    assert bool(assign(parse(entry(), "x", TODAY), there, CASES)) is within


MISPLACED = {
    "id of no case": (
        named("resume/ddp-ws3-float32"),
        r"x:1: no case here matches .*'resume/ddp-ws3-float32'$",
    ),
    "pattern of no case": (entry(strategy='["ddp", "tp*"]'), r"x:1: no case .* strategy 'tp\*'$"),
    "left out, and not there": (entry(dtype='["*", "!int8"]'), r"x:1: no case .* dtype '!int8'$"),
    "nothing is left": (entry(scenario='["basic", "!basic"]'), r"x:1: .*all its patterns together"),
    "two entries": (entry() + entry(strategy='"ddp"'), r"^x:1 and x:9: two entries for one case: "),
    "no such fact": (entry(facts="{driver = '1'}"), r"x:1: facts: no cell has 'driver'; known: "),
}


@pytest.mark.parametrize(("text", "complaint"), MISPLACED.values(), ids=MISPLACED)
def test_entries_that_do_not_fit_the_cell(text: str, complaint: str) -> None:
    with pytest.raises(Wrong, match=complaint):
        assign(parse(text, "x", TODAY), HERE, CASES)


# -- entries that can never apply -------------------------------------------------------------------------

NAMES = Names({"cpu", "xpu", "accelerator"}, {"basic", "resume"}, {"ddp", "fsdp2", "stacked"})
#: An entry that is about no torch that there is.
LATER = {"torch": '">=30"'}
IMPOSSIBLE = {
    "device": (entry(device='"cppu"', **LATER), r"x:1: unknown device 'cppu'; known here: "),
    "device that is left out": (
        entry(device='["*", "!cppu"]', **LATER),
        r"x:1: unknown device '!cppu'",
    ),
    "scenario": (entry(scenario='["res*", "gone"]', **LATER), r"x:1: unknown scenario 'gone'"),
    "strategy": (entry(strategy='"fsdp9*"', **LATER), r"x:1: unknown strategy 'fsdp9\*', "),
    "scenario of an id": (
        named("gone/ddp-ws2-float32", **LATER),
        r"x:1: unknown case 'gone/d",
    ),
    "strategy of an id": (named("basic/dpd-ws2-float32", **LATER), r"x:1: unknown case 'basi"),
    "id without a world": (
        named("basic/ddp-float32", **LATER),
        r"x:1: 'basic/ddp-float32' is not a ",
    ),
    "one id twice": (
        named("basic/ddp-ws2-float32", **LATER) + named("basic/ddp-ws2-float32", **LATER),
        r"^x:1 and x:9: two entries for one case: basic/ddp-ws2-float32$",
    ),
    "id and pattern": (
        entry(torch='"<2.8"', device='"*pu"') + named("resume/ddp-ws2-float32", device='"xpu"'),
        r"^x:1 and x:9: two entries for one case: resume/ddp-ws2-float32$",
    ),
    "one pattern twice": (
        entry(torch='">=2.8.1"') + entry(torch='"<2.9"'),
        r"^x:1 and x:9: two entries for one case: scenario resume$",
    ),
    "one within the facts of the other": (
        entry(facts="{device_name = 'A'}") + entry(facts="{device_name = 'A', torch = '2*'}"),
        r"^x:1 and x:10: two entries for one case: scenario resume$",
    ),
    "checks in common": (
        checked("a*", **LATER) + checked("ab", **LATER),
        r"^x:1 and x:9: two entries for one case: resume/ddp-ws2-float32$",
    ),
}


@pytest.mark.parametrize(("text", "complaint"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_entry_that_can_never_hold_is_an_error(text: str, complaint: str) -> None:
    entries = parse(text, "x", TODAY)

    with pytest.raises(Wrong, match=complaint):
        check(entries, NAMES)


POSSIBLE = {
    "no torch yet": entry(**LATER),
    "no such world here": named("resume/ddp-ws64-float32"),
    "way of an operation": named("basic/stacked-ws2-int64"),
    "device of torch's": entry(device='"mps"'),
    "apart by torch": entry(torch='"<2.8"') + entry(torch='">=2.8"'),
    "apart by one release": entry(torch='"==2.8.*"') + entry(torch='"!=2.8.*"'),
    "apart by device": entry(device='"cpu"') + entry(device='["*", "!cpu"]'),
    "apart by facts": entry(facts="{device_name='A'}") + entry(facts="{device_name='B'}"),
    "apart by case": named("basic/ddp-ws2-float32") + entry(),
    "apart by checks": checked("a", **LATER) + checked("b", **LATER),
}


@pytest.mark.parametrize("text", POSSIBLE.values(), ids=POSSIBLE)
def test_entry_that_can_hold_somewhere_is_none(text: str) -> None:
    check(
        parse(text, "x", TODAY), Names({*NAMES.devices, "mps"}, NAMES.scenarios, NAMES.strategies)
    )


def test_names_of_the_files_are_those_of_the_suite() -> None:
    program = "import json; from distparity.worker import tasks; print(json.dumps(tasks.facts().to_json()))"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    facts = TorchFacts.from_json(json.loads(done.stdout))
    suite, files = Names.of(facts, ["cpu"]), Names.of_files(["mine"])

    assert {*suite.scenarios, "mine"} <= set(files.scenarios)
    assert {*suite.strategies, "mine"} <= set(files.strategies)
    assert {*suite.devices, "mine"} == set(files.devices)


# -- what an outcome is ------------------------------------------------------------------------

SUMMED_UP = "summed, not averaged"
CRASH: dict[str, str | None] = {"failure": '"crash"', "diagnosis": None, "error": '"SIGABRT"'}
EITHER: dict[str, str | None] = {
    "failure": '["crash", "raised"]',
    "diagnosis": None,
    "error": '"SIGABRT|not connected"',
    "undefined": '"which rank is first"',
}
RACE = {"diagnosis": "no order between the write and the read"}
FOUND = Outcome(Status.FAILED, "right numbers", "", RACE, failure="findings")
JUDGED = {
    "as declared": ({}, wrong(SUMMED_UP), Status.EXPECTED),
    "other diagnosis": ({}, wrong("stale"), Status.FAILED),
    "no diagnosis": ({}, wrong(), Status.FAILED),
    "raised": (
        {},
        Outcome(Status.FAILED, "summed: rank 0 raised", failure="raised"),
        Status.FAILED,
    ),
    "crashed": ({}, Outcome(Status.CRASH, "rank 0 killed", failure="crash"), Status.CRASH),
    "passed": ({}, Outcome(Status.PASSED, "ratio 0.1", "", {"ratio": 0.1}), Status.FIXED),
    "passed, as it sometimes does": (
        {"sometimes": "true"},
        Outcome(Status.PASSED, "ratio 0.1", "", {"ratio": 0.1}),
        Status.PASSED,
    ),
    "failed otherwise than it sometimes does": (
        {"sometimes": "true"},
        wrong(),
        Status.FAILED,
    ),
    "the device's findings": (
        {"failure": '"findings"', "diagnosis": '"^no order between"'},
        FOUND,
        Status.EXPECTED,
    ),
    "findings where numbers are expected": ({}, FOUND, Status.FAILED),
    "another finding besides": (
        {"failure": '"findings"', "diagnosis": '"^no order between"'},
        replace(FOUND, findings=(RACE["diagnosis"], "something else")),
        Status.FAILED,
    ),
    "a finding besides wrong numbers": (
        {},
        replace(wrong(SUMMED_UP), findings=(RACE["diagnosis"],)),
        Status.FAILED,
    ),
    **{
        f"a finding, and {quantity} wrong": (
            {"failure": '"findings"', "diagnosis": '"^no order"', "quantity": '"gradient"'},
            replace(found, findings=(RACE["diagnosis"],)),
            status,
        )
        for quantity, found, status in (
            ("nothing", FOUND, Status.EXPECTED),
            ("what it says", wrong(SUMMED_UP), Status.EXPECTED),
            ("something else", wrong(SUMMED_UP, kind="buffer"), Status.FAILED),
        )
    },
    "harness": ({}, Outcome(Status.ERROR, "the oracle"), Status.ERROR),
    "not supported": ({}, Outcome(Status.NOT_SUPPORTED, "no"), Status.NOT_SUPPORTED),
    "quantity": (
        {"diagnosis": None, "quantity": '"gradient"'},
        wrong(SUMMED_UP),
        Status.EXPECTED,
    ),
    "other quantity": (
        {"diagnosis": None, "quantity": '"buffer"'},
        replace(wrong(SUMMED_UP), message=f"{AT}: buffer"),
        Status.FAILED,
    ),
    "crash": (
        CRASH,
        Outcome(Status.CRASH, "rank 0 killed by SIGABRT", failure="crash"),
        Status.EXPECTED,
    ),
    "other crash": (
        CRASH,
        Outcome(Status.CRASH, "rank 0 killed by SIGSEGV", failure="crash"),
        Status.CRASH,
    ),
    **{
        f"{failure}, where one of two is expected: {says}": (
            EITHER,
            Outcome(before, says, failure=failure),
            after,
        )
        for before, failure, says, after in (
            (Status.CRASH, "crash", "killed by SIGABRT", Status.EXPECTED),
            (Status.FAILED, "raised", "not connected", Status.EXPECTED),
            (Status.FAILED, "raised", "another error", Status.FAILED),
            (Status.TIMEOUT, "timeout", "not connected", Status.TIMEOUT),
        )
    },
    "hang": (
        {"failure": '"timeout"', "diagnosis": None},
        Outcome(Status.TIMEOUT, "no end", failure="timeout"),
        Status.EXPECTED,
    ),
}


@pytest.mark.parametrize(("changes", "outcome", "status"), JUDGED.values(), ids=JUDGED)
def test_judge(changes: dict[str, str | None], outcome: Outcome, status: Status) -> None:
    (one,) = parse(entry(**changes), "vendor.toml", TODAY)
    judged = one.judge(outcome)

    assert judged.status is status
    if status is Status.EXPECTED:
        assert judged.message.endswith("torch sums (https://example.org/1; vendor.toml:1)")
        assert outcome.message in judged.detail
    elif status is Status.FIXED:
        assert judged.message == "fixed: remove this entry: vendor.toml:1 (torch sums)"
    elif status.value in ("failed", "crash", "timeout"):
        assert judged.message.startswith(f"{outcome.message}; vendor.toml:1 expects something else")
    elif status is Status.PASSED:
        named = {"expectation": "vendor.toml:1", "link": "https://example.org/1"}
        assert judged == replace(outcome, facts={**outcome.facts, **named})
    else:
        assert judged == outcome


def test_set_of_outcomes_is_closed_and_each_is_one_of_three_kinds() -> None:
    good = {s for s in Status if not s.bad and not s.skipped}
    skipped = {s for s in Status if s.skipped}

    assert good == {Status.PASSED, Status.EXPECTED}
    assert skipped == {Status.NOT_SUPPORTED, Status.NOT_AVAILABLE, Status.NOT_RUN}
    assert not any(s.bad for s in skipped)


# -- proposals ---------------------------------------------------------------------------------

SUMMED = Failed("wrong numbers", AT, "summed: a factor of the world size, 2")
SUMMED_4 = Failed("wrong numbers", AT, "summed: a factor of the world size, 4")


def proposal(failed: dict[str, Failed]) -> str:
    by_id = {case.id: case for case in CASES}
    found = {by_id[name]: one for name, one in failed.items()}
    return "\n".join(propose(found, CASES, "2.8.0", "torch sums", "https://example.org/1"))


INF_NORM = Failed(
    "wrong numbers", "inf norm: gradient 0, rank 0: off", "", ("inf norm * 3", "x[0]")
)

PROPOSED = {
    "patterns where they are exact": (
        {"resume/ddp-ws2-float32": SUMMED, "resume/ddp-ws4-float32": SUMMED_4},
        {"strategy": ("ddp",), "world_size": ("2", "4")},
    ),
    "ids where they are not": (
        {"resume/ddp-ws2-float32": SUMMED, "basic/ddp-ws4-float32": SUMMED_4},
        {},
    ),
    "checks of an operation": ({"resume/ddp-ws2-float32": INF_NORM}, {}),
}


@pytest.mark.parametrize(("failed", "patterns"), PROPOSED.values(), ids=PROPOSED)
def test_proposal_means_what_failed_and_nothing_else(
    failed: dict[str, Failed], patterns: dict[str, tuple[str, ...]]
) -> None:
    (one,) = parse(proposal(failed), "x", TODAY)

    assert sorted(assign([one], HERE, CASES)) == sorted(failed)
    assert patterns.items() <= one.patterns.items()
    for seen in failed.values():
        outcome = wrong(seen.diagnosis, diverged="; ".join(seen.checks))
        assert one.judge(outcome).status is Status.EXPECTED
        assert one.judge(wrong("another", diverged="inf norm 3")).status is Status.FAILED


@pytest.mark.parametrize(
    ("failed", "status"),
    [
        (Failed("wrong numbers", "step 1, buffer 'b', rank 0: off"), Status.FAILED),
        (Failed("raised", "rank 0 raised ValueError: a (b) [c] 7, at x.py:12"), Status.FAILED),
        (Failed("crash", "rank 1 killed by SIGSEGV"), Status.CRASH),
        (Failed("timeout", "hang: rank 0 in all_reduce #9"), Status.TIMEOUT),
    ],
    ids=lambda value: value.failure if isinstance(value, Failed) else "",
)
def test_proposal_is_what_it_was_made_of(failed: Failed, status: Status) -> None:
    (one,) = parse(proposal({"resume/ddp-ws2-float32": failed}), "x", TODAY)
    outcome = replace(
        wrong(kind="buffer", step=1), status=status, message=failed.message, failure=failed.failure
    )

    assert one.judge(outcome).status is Status.EXPECTED


# -- the command line --------------------------------------------------------------------------

RESULTS = {
    "a/ddp-ws2-float32": {
        "status": "failed",
        "failure": "wrong numbers",
        "ratio": "7",
        "diagnosis": "summed",
        "message": AT,
    },
    "b/ddp-ws2-float32": {
        "status": "crash",
        "failure": "crash",
        "message": "rank 0 killed by SIGSEGV",
    },
    "c/ddp-ws2-float32": cells.PASSED,
    "d/ddp-ws2-float32": {"status": "unexpectedly fixed", "message": "fixed: remove this: x:3"},
    "e/ddp-ws2-float32": {"status": "expected failure", "message": "known"},
}
REASON = ["--reason", "torch sums", "--link", "https://example.org/1"]


@pytest.fixture
def results(tmp_path: Path) -> str:
    return str(cells.write(tmp_path, "2.8", "cpu", RESULTS))


CELLS = {
    "xpu": ("xpu", {}),
    "xpu+ccl+card=BMG": ("xpu", {"device": "xpu+ccl+card=BMG"}),
    "cuda-shared-default": ("cuda", {"device": "cuda-shared-default"}),
}


@pytest.mark.parametrize(("cell", "expected"), CELLS.items(), ids=CELLS)
def test_a_proposed_entry_is_about_the_cell_in_which_the_case_failed(
    cell: str, expected: tuple[str, dict[str, str]]
) -> None:
    """Another backend is a fact of the cell, and no device that an entry can name."""
    case = Case("basic", "ddp", 2, "float32", cell)
    failed = {case: Failed("raised", "RuntimeError: no")}

    (entry,) = parse("".join(propose(failed, [case], "2.8.0", "why", "https://a.b/1")), "a.toml")

    kind, facts = expected
    assert (entry.device, entry.facts) == ((kind,), facts)
    here = Surroundings("2.8.0", (kind, kind), {"device": cell})
    assert assign([entry], here, [case]) == {case.id: entry}


@pytest.mark.parametrize("words", [[], REASON[:2], REASON[2:]], ids=["nothing", "reason", "link"])
def test_update_proposes_what_a_person_has_to_complete(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.main(["expectations", "update", results, "--case", "[ade]/*", *words]) == 0
    said = capsys.readouterr()

    assert "fixed: remove this: x:3" in said.err
    assert all(line.startswith("#") for line in said.out.splitlines())
    assert parse(said.out, "x", TODAY) == []
    text = re.sub(r"(?m)^# ?", "", said.out.partition("\n#\n")[2])
    assert text.count("[[expect]]") == 1
    with pytest.raises(Wrong, match=r"x:1: (reason|link): "):
        parse(text, "x", TODAY)


def test_update_with_a_reason_proposes_what_can_be_loaded(
    results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["expectations", "update", results, "--case", "a/*", "--case", "c/*", *REASON]

    assert cli.main(words) == 0
    (one,) = parse(capsys.readouterr().out, "x", TODAY)
    assert (one.cases, one.reason) == (("a/ddp-ws2-float32",), "torch sums")


def test_one_reason_is_for_one_kind_of_failure(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vendor.toml"

    for more in (["-o", str(path)], []):
        assert cli.main(["expectations", "update", results, *REASON, *more]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert "2 kinds of failure, but one reason: choose one kind with --case" in said.err
        assert "  wrong numbers, diagnosis ^summed: a/ddp-ws2-float32\n" in said.err
        assert "  crash, error rank \\d+ killed by SIGSEGV: b/ddp-ws2-float32\n" in said.err
    assert not path.exists()


def test_one_kind_of_failure_in_several_cells_has_one_reason(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = cells.write(tmp_path, "2.9", "cpu", {"b/x-ws2-f": RESULTS["a/ddp-ws2-float32"]})
    words = ["expectations", "update", results, str(other), "--case", "a/*", "--case", "b/x*"]

    assert cli.main([*words, *REASON]) == 0
    entries = parse(capsys.readouterr().out, "x", TODAY)
    assert [str(one.torch) for one in entries] == ["==2.8", "==2.9"]


def test_update_writes_no_entry_without_a_reason(results: str, tmp_path: Path) -> None:
    path = tmp_path / "vendor.toml"
    words = ["expectations", "update", results, "-o", str(path)]

    assert cli.main(words) == 1
    assert cli.main([*words, "--reason", " ", "--link", "https://example.org"]) == 1
    assert not path.exists()


def test_update_adds_to_a_file_and_says_nothing_twice(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vendor.toml"
    words = ["expectations", "update", results, "-o", str(path), *REASON]

    assert cli.main([*words, "--case", "a/*"]) == 0
    assert cli.main([*words, "--case", "b/*"]) == 0
    assert [entry.cases for entry in load([path]).entries] == [
        ("a/ddp-ws2-float32",),
        ("b/ddp-ws2-float32",),
    ]
    before = path.read_text()
    assert cli.main([*words, "--case", "a/*"]) == 1
    assert "two entries for one case: a/ddp-ws2-float32" in capsys.readouterr().err
    assert path.read_text() == before


CHECKED_FILES = {
    "right": ([entry()], [], ""),
    "no such device": ([entry(device='"cppu"')], [], "x1.toml:1: unknown device 'cppu'"),
    "no such scenario": ([entry(scenario='"gone"')], [], "x1.toml:1: unknown scenario 'gone'"),
    "no such strategy": ([entry(strategy='"dpd*"')], [], "x1.toml:1: unknown strategy 'dpd*'"),
    "names of one's own": (
        [entry(device='"cppu"', scenario='"gone"')],
        ["--known", "cppu", "--known", "gone"],
        "",
    ),
    "two on one case": ([entry() * 2], [], "x1.toml:1 and {}x1.toml:9: two entries for one case"),
    "two files": ([entry(), entry()], [], "x1.toml:1 and {}x2.toml:1: two entries for one case"),
}


@pytest.mark.parametrize(("texts", "words", "complaint"), CHECKED_FILES.values(), ids=CHECKED_FILES)
def test_check_finds_what_can_be_known_without_torch(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    texts: list[str],
    words: list[str],
    complaint: str,
) -> None:
    paths = [tmp_path / f"x{number}.toml" for number in range(1, len(texts) + 1)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    code = cli.main(["expectations", "check", *map(str, paths), *words])

    assert code == bool(complaint)
    assert complaint.format(f"{tmp_path}/") in capsys.readouterr().err


# -- what is shipped ---------------------------------------------------------------------------


def test_shipped_files_are_right_and_every_entry_has_a_program() -> None:
    entries = load([SHIPPED]).entries
    check(entries, Names.of_files())
    for one in entries:
        assert one.programs, one.where
        assert all((ROOT / name).is_file() for name in one.programs), one.where


#: What a program prints and exits with, under an entry on torch below 2.9; and what comes of it.
PROGRAMS = {
    "shows, and is to": ("defect: x", 1, "2.8.0", 0),
    "right, and is to be": ("right: x", 0, "2.9.0", 0),
    "right, and is to show": ("right: x", 0, "2.8.0", 1),
    "shows, and is not to": ("defect: x", 1, "2.9.0", 1),
    "breaks": ("Traceback", 1, "2.8.0", 1),
    "says one thing and exits with another": ("defect: x", 0, "2.8.0", 1),
}


def defects(folder: Path, torch: str, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "known.toml").write_text(text)
    words = ["--torch", torch, "--root", str(folder), "--file", str(folder / "known.toml")]
    command = [sys.executable, str(ROOT / "ci" / "defects.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("line", "code", "torch", "red"), PROGRAMS.values(), ids=PROGRAMS)
def test_programs_are_held_against_the_data(
    tmp_path: Path, line: str, code: int, torch: str, red: int
) -> None:
    (tmp_path / "defects").mkdir()
    (tmp_path / "defects" / "x.py").write_text(f"print({line!r}); raise SystemExit({code})")
    done = defects(tmp_path, torch, entry(torch='"<2.9"', program='"defects/x.py"'))

    assert done.returncode == red, done.stdout + done.stderr
    assert f"  {line}" in done.stdout


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (entry(), "it names no program"),
        (entry(program='"defects/y.py"'), "defects/y.py: an entry names it, and it is not there"),
        ("", "defects/x.py: no entry names it"),
    ],
    ids=["entry without", "no such program", "program without"],
)
def test_entries_and_programs_belong_together(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "defects").mkdir()
    (tmp_path / "defects" / "x.py").write_text("print('right: x')")
    done = defects(tmp_path, "2.8.0", text)

    assert done.returncode == 1
    assert complaint in done.stderr


# -- real runs -------------------------------------------------------------------------------------

SUM, LOCAL, RIGHT_ONE, EXIT, RAISE, HANG = (
    f"multiple_forward/{name}-ws2-float32"
    for name in (
        *("wrong_sum", "wrong_local", "ddp", "fault-exit-3", "fault-raise-all"),
        "fault-sigstop",
    )
)
ANY = {"torch": '">=2.4"'}
FIRST = (
    named(SUM, diagnosis='"^gradients summed"', **ANY)
    + named(LOCAL, diagnosis='"^gradients summed"', **ANY)
    + named(RIGHT_ONE, **ANY)
)
SECOND = (
    named(EXIT, failure='"crash"', diagnosis=None, error='"exited with code 3"', **ANY)
    + named(RAISE, failure='"raised"', diagnosis=None, error='"ValueError: injected"', **ANY)
    + named(HANG, failure='"timeout"', diagnosis=None, not_run="true", **ANY)
)


def run_with(suite: Suite, folder: Path, texts: list[str], *words: str) -> Ran:
    """The suite with included cases that fail, and a file of expectations for each text."""
    own = ["--device", "cpu", "--include", "wrong_strategies", "--include", "injected"]
    for number, text in enumerate(texts, 1):
        (folder / f"{number}.toml").write_text(text)
        own += ["--expectations", str(folder / f"{number}.toml")]
    return suite(*own, *words)


def by_case(*cases: str) -> list[str]:
    return [word for case in cases for word in ("--case", case)]


@pytest.fixture(scope="module")
def expecting(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    folder = tmp_path_factory.mktemp("expectations")
    ran = run_with(
        suite, folder, [FIRST, SECOND], *by_case(SUM, LOCAL, RIGHT_ONE, EXIT, RAISE, HANG)
    )
    return ran, folder


STATUSES = {
    SUM: "expected failure",
    LOCAL: "failed",
    RIGHT_ONE: "unexpectedly fixed",
    EXIT: "expected failure",
    RAISE: "expected failure",
    HANG: "not run",
}


def test_every_outcome_of_a_run_with_two_files(expecting: tuple[Ran, Path]) -> None:
    ran, folder = expecting
    first, second = folder / "1.toml", folder / "2.toml"

    assert ran.code == 1, ran.output
    assert ran.statuses("here-cpu") == STATUSES
    assert f"fixed: remove this entry: {first}:17" in ran.output
    assert f"{first}:9 expects something else: wrong numbers, diagnosis" in ran.output
    assert f"torch sums (https://example.org/1; {second}:17)" in ran.text("here-cpu", HANG)
    counts = "1 failed, 1 unexpectedly fixed, 3 expected failures, 1 not run"
    for count in counts.split(", "):
        assert count in ran.output


def test_expected_failure_is_neither_pass_nor_failure_to_a_consumer(
    expecting: tuple[Ran, Path],
) -> None:
    suite = expecting[0].suite("here-cpu")
    kinds: dict[str, list[tuple[str, Any]]] = {
        f"{case.classname.removeprefix('distparity.')}/{case.name}": [
            (type(one).__name__, one.type) for one in case.result
        ]
        for case in suite
    }

    assert kinds[SUM] == [("Skipped", "distparity.expected failure")]
    assert kinds[HANG] == [("Skipped", "distparity.not run")]
    assert kinds[RIGHT_ONE] == [("Failure", "distparity.unexpectedly fixed")]
    assert (suite.tests, suite.failures, suite.skipped) == (6, 2, 4)


def test_facts_of_a_run_name_its_files(expecting: tuple[Ran, Path]) -> None:
    ran, folder = expecting
    (said,) = (
        p.value for p in ran.suite("here-cpu").properties() if p.name == "distparity.expectations"
    )
    expected = [
        f"{path} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in (folder / "1.toml", folder / "2.toml")
    ]

    *shipped, first, second = said.split(", ")
    names = [f"known_defects/{path.name}" for path in files_of(SHIPPED)]
    assert [one.partition(" ")[0] for one in shipped] == names
    assert all(re.fullmatch(r"\S+ sha256:[0-9a-f]{64}", one) for one in shipped)
    assert [first, second] == expected


BAD = {
    "expired": (named(SUM, expires="2020-01-01"), r"1\.toml:1: it expired on 2020-01-01"),
    "no such case": (named("multiple_forward/ddp-ws2-int8", **ANY), r"1\.toml:1: no case here"),
    "no such world": (
        named("multiple_forward/ddp-ws65-float32", **ANY),
        r"1\.toml:1: no case here",
    ),
    "no such device": (
        named(SUM, device='"cppu"', **ANY),
        r"1\.toml:1: unknown device 'cppu'",
    ),
    "never such a case": (
        named("gone/ddp-ws2-float32", torch='">=30"'),
        r"1\.toml:1: unknown case ",
    ),
    "two on one": (named(SUM, **ANY) * 2, r"1\.toml:1 and \S*1\.toml:9: two entries for one case"),
}


@pytest.mark.parametrize(("text", "complaint"), BAD.values(), ids=BAD)
def test_file_that_cannot_be_used_ends_the_run(
    suite: Suite, tmp_path: Path, text: str, complaint: str
) -> None:
    ran = run_with(suite, tmp_path, [text], *by_case(SUM))

    assert ran.code == 4
    assert re.search(complaint, ran.output)
    assert ran.statuses("here-cpu") == {"cell/start": "error"}
    assert re.search(complaint, ran.text("here-cpu", "cell/start"))


def test_what_a_run_leaves_out_is_not_missed(suite: Suite, tmp_path: Path) -> None:
    others = named(LOCAL, "multiple_forward/ddp-ws8-float32", **ANY)
    ran = run_with(
        suite, tmp_path, [others], "--world-size", "2", "-k", "wrong_sum and multiple_forward"
    )

    assert "failed" in ran.statuses("here-cpu").values()
    assert ran.code == 1, ran.output


def test_right_failures_alone_make_a_green_run(suite: Suite, tmp_path: Path) -> None:
    ran = run_with(suite, tmp_path, [SECOND], "--retry-failed", *by_case(EXIT, RAISE))

    assert ran.code == 0, ran.output
    assert "2 xfailed" in ran.output


def test_setting_of_a_project(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "waivers.toml").write_text(SECOND)
    (tmp_path / "pytest.ini").write_text("[pytest]\ndistparity_expectations = waivers.toml\n")
    ran = run_with(suite, tmp_path, [], "-c", str(tmp_path / "pytest.ini"), *by_case(RAISE))

    assert ran.code == 0, ran.output
    assert ran.statuses("here-cpu") == {RAISE: "expected failure"}
