"""A known defect that is pinned excuses its own numbers, and no other fault of its case."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Suite
from packaging.version import Version

from distparity.core.case import Case
from distparity.core.judgement import Divergence, Quantity, Size
from distparity.core.marks import Mark
from distparity.core.outcome import Outcome, Status
from distparity.expectations import SHIPPED, Surroundings, Wrong, assign, load
from distparity.expectations.file import parse
from distparity.expectations.pins import Pin, read, suffixed, written
from distparity.expectations.recording import Recording, known

CASE = Case("clipping", "fsdp1", 2, "float64", "cpu")
ENTRY = """
[[expect]]
scenario = "clipping"
device = "cpu"
torch = ">=2.4"
failure = "wrong numbers"
quantity = "gradient"
reason = "it halves"
link = "https://example.org/1"
"""
#: Half of what is expected: the largest of it is 0.8.
FIRST = Divergence(
    Quantity(0, "gradient", "w"), 0, "off by 0.4", 1e6, (0,), 0.8, 0.4, Size(0.4, 0.8, 0.5)
)
LAST = replace(FIRST, quantity=Quantity(2, "parameter", "w"), rank=1)
FACTS = {**CASE.facts, "diagnosis": "halved"}


def outcome(*divergences: Divergence, **facts: str) -> Outcome:
    marks = tuple(filter(None, map(Mark.of, divergences)))
    return Outcome(
        Status.FAILED,
        str(divergences[0]),
        facts={**FACTS, **facts},
        failure="wrong numbers",
        first=divergences[0],
        marks=marks,
    )


KNOWN = outcome(FIRST, LAST)
PINS = {("2.13.0", "cpu"): {CASE.id: Pin.of(KNOWN)}}


def judged(found: Outcome, torch: str = "2.13.0+cu130", entry: str = ENTRY) -> Status:
    here = Surroundings(torch, ("cpu",), {})
    return assign(parse(entry, "file"), here, [CASE], PINS)[CASE.id].judge(found).status


def test_what_is_pinned_is_expected() -> None:
    assert judged(KNOWN) is Status.EXPECTED


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(outcome(replace(FIRST, size=Size(0.6, 0.8, 0.25)), LAST), id="another value"),
        pytest.param(outcome(replace(FIRST, size=Size(0.4, 0.8, 1.5)), LAST), id="another direction"),
        pytest.param(outcome(FIRST, replace(LAST, size=Size(0.8, 0.8, 0.0))), id="wrong later"),
        pytest.param(outcome(replace(FIRST, rank=1), LAST), id="another rank"),
        pytest.param(outcome(replace(FIRST, quantity=Quantity(1, "gradient", "w")), LAST), id="a later step"),
        pytest.param(outcome(replace(FIRST, quantity=Quantity(0, "gradient", "b")), LAST), id="another tensor"),
        pytest.param(outcome(replace(FIRST, size=None), LAST), id="no values"),
        pytest.param(outcome(FIRST), id="right in the end"),
        pytest.param(outcome(FIRST, LAST, diagnosis="summed"), id="another diagnosis"),
        pytest.param(outcome(FIRST, LAST, diagnosis=""), id="no diagnosis"),
    ],
)  # fmt: skip
def test_another_fault_of_the_same_case_is_not_excused(other: Outcome) -> None:
    assert judged(other) is Status.FAILED


@pytest.mark.parametrize(
    "near",
    [
        pytest.param(Size(0.4001, 0.8, 0.5002), id="a percent of the error"),
        pytest.param(Size(0.4, 0.8, 0.5), id="the same"),
    ],
)
def test_last_digits_are_the_processor_s(near: Size) -> None:
    assert judged(outcome(replace(FIRST, size=near), LAST)) is Status.EXPECTED


def test_an_error_near_to_rounding_has_no_mark() -> None:
    assert Mark.of(replace(FIRST, ratio=9.0)) is None


def test_pin_is_of_its_release_alone() -> None:
    assert judged(outcome(replace(FIRST, rank=1), LAST), torch="2.8.0") is Status.EXPECTED


def test_pin_is_of_its_cell_alone() -> None:
    here = Surroundings("2.13.0", ("cpu",), {"device": "cpu-default"})
    other = outcome(replace(FIRST, rank=1), LAST)

    assert (
        assign(parse(ENTRY, "file"), here, [CASE], PINS)[CASE.id].judge(other).status
        is Status.EXPECTED
    )


def test_what_is_undefined_is_not_held_to_its_numbers() -> None:
    entry = f'{ENTRY}undefined = "the memory is not initialised"\n'

    assert judged(outcome(replace(FIRST, rank=1), LAST), entry=entry) is Status.EXPECTED


WORDS = {
    "the same rank": (("crash", "killed by SIGABRT, at _ops.py:1061 in __call__"), True),
    "another line": (("crash", "killed by SIGABRT, at _ops.py:7 in __call__"), True),
    "the other word": (("crash", "killed by SIGSEGV, at _ops.py:1061 in __call__"), True),
    "another place": (("crash", "killed by SIGABRT, at strategy.py:3 in wrap"), False),
    "another build": (("raised", 'raised Error: FAILED at "/build/csrc/reducer.cpp":9'), True),
    "another kind": (("raised", "killed by SIGABRT, at _ops.py:1061 in __call__"), False),
}


@pytest.mark.parametrize(("found", "same"), WORDS.values(), ids=WORDS)
def test_a_rank_s_end_is_known_by_what_it_did_and_where(found: tuple[str, str], same: bool) -> None:
    known = [
        ("crash", f"killed by {name}, at _ops.py:1061 in __call__")
        for name in ("SIGABRT", "SIGSEGV")
    ]
    known.append(("raised", 'raised Error: FAILED at "../csrc/reducer.cpp":7'))
    pin = Pin("", tuple(Mark.of_words(*one) for one in known))
    died = Outcome(Status.CRASH, failure=found[0], marks=(Mark.of_words(*found),))

    assert pin.describes(died) is same


# -- the file --------------------------------------------------------------------------------------


def test_pins_come_back_from_their_file() -> None:
    words = Pin("", (Mark.of_words("crash", "killed by SIGABRT"),))
    pins = {**PINS, ("2.8.0", "cpu"): {"a/b-ws2-float32": words, CASE.id: Pin.of(KNOWN)}}

    assert read(written(pins)) == pins


@pytest.mark.parametrize(
    "content", ["", "[]", '{"2.8": 1}', '{"2.8": {"cpu": {"a/b": ["", ["w", "", 1]]}}}', "[" * 100_000]
)  # fmt: skip
def test_what_is_no_file_of_pins_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(ENTRY)
    suffixed(file).write_text(content)

    with pytest.raises(Wrong, match=r"mine\.pins\.json"):
        load([file])


def recorded(
    file: Path, *runs: Pin, where: str = "mine.toml:2", failure: str = "wrong numbers"
) -> Recording:
    recording = Recording(file)
    for pin in runs:
        more = {"expectation": where}
        result: Any = SimpleNamespace(
            status="expected failure",
            failure=failure,
            more=more,
            diagnosis=pin.diagnosis,
            marks=pin.marks,
        )
        entries = parse(ENTRY, file.name)
        results = {CASE.id: result}
        recording.add("2.13.0", "cpu", known(entries, results), results)
    recording.write()
    return recording


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(ENTRY)
    return path


def test_two_runs_that_agree_are_one_pin(file: Path) -> None:
    recording = recorded(file, Pin.of(KNOWN), Pin.of(KNOWN))

    assert (load([file]).pins, recording.apart) == (PINS, set())


def test_two_runs_that_differ_are_no_pin(file: Path) -> None:
    other = Pin.of(outcome(replace(FIRST, rank=1), LAST))

    assert recorded(file, Pin.of(KNOWN), other).apart == {f"torch 2.13.0, {CASE.id}"}
    assert load([file]).pins == {}


def test_pins_of_cases_that_did_not_run_are_kept(file: Path) -> None:
    kept = {"a/b-ws4-float32": Pin.of(KNOWN)}
    before = {**kept, CASE.id: Pin.of(KNOWN)}
    suffixed(file).write_text(written({("2.13.0", "cpu"): before}))

    recorded(file, Pin.of(KNOWN), where="other.toml:2")

    assert load([file]).pins == {("2.13.0", "cpu"): kept}


WHERE = {
    "another file": ("other.toml:2", False),
    "another line": ("mine.toml:20", False),
    "a name that ends alike": ("not mine.toml:2", False),
    "in a folder": ("/a folder/mine.toml:2", True),
    "the second of two": ("other.toml:2 and mine.toml:2", True),
    "the first of two": ("mine.toml:2 and other.toml:2", True),
}


@pytest.mark.parametrize(("where", "known"), WHERE.values(), ids=WHERE)
def test_what_the_file_knows_is_recorded(file: Path, where: str, known: bool) -> None:
    recorded(file, Pin.of(KNOWN), where=where)

    assert load([file]).pins == (PINS if known else {})


def test_what_a_device_finds_is_not_pinned(file: Path) -> None:
    recorded(file, Pin("a stream read too early", ()), failure="findings")

    assert load([file]).pins == {}


# -- what is shipped -------------------------------------------------------------------------------

SHIPPED_PINS = load([SHIPPED]).pins
Spoil = Callable[[Pin], Pin]


def numbers(change: Callable[[Mark], Mark]) -> Spoil:
    return lambda pin: replace(
        pin, marks=tuple(one if one.error is None else change(one) for one in pin.marks)
    )


def times(mark: Mark, factor: float) -> Mark:
    assert mark.error is not None
    assert mark.scale is not None
    assert mark.factor is not None
    error = abs(factor) * mark.error + abs(factor - 1) * mark.scale
    return replace(mark, error=error, factor=factor * mark.factor)


ABORTED = Mark.of_words("crash", "died of a fatal error: Aborted, at strategy.py:7 in backward")
FAULTS: dict[str, Spoil] = {
    "gradients times -3": numbers(functools.partial(times, factor=-3)),
    "gradients lost": numbers(lambda mark: replace(mark, error=mark.scale, factor=0.0)),
    "not wrong there": lambda pin: replace(
        pin, marks=tuple(replace(one, where=f"elsewhere, {one.where}") for one in pin.marks)
    ),
    "another diagnosis": lambda pin: replace(pin, diagnosis="replicas differ"),
    "os.abort()": lambda pin: replace(pin, marks=(ABORTED,)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("cell", SHIPPED_PINS, ids="-".join)
def test_no_shipped_pin_excuses(cell: tuple[str, str], fault: str) -> None:
    excused = []
    for case, pin in SHIPPED_PINS[cell].items():
        if fault == "not wrong there" and not any(mark.is_clear for mark in pin.marks):
            # Too near to rounding to be there on every processor; its diagnosis is held to.
            continue
        spoilt = FAULTS[fault](pin)
        failure = "wrong numbers" if pin.marks and pin.marks[0].where not in ENDS else "crash"
        facts = {"diagnosis": spoilt.diagnosis}
        if spoilt != pin and pin.describes(
            Outcome(Status.FAILED, facts=facts, failure=failure, marks=spoilt.marks)
        ):
            excused.append(case)
    assert excused == []


ENDS = ("raised", "crash", "timeout")


def is_end(mark: Mark) -> bool:
    return mark.where in ENDS or mark.what.startswith("raised ")


@pytest.mark.parametrize(("fault", "status"), [("times -3", "failed"), ("abort", "crash")])
def test_injected_fault_in_a_pinned_case_is_red(suite: Suite, fault: str, status: str) -> None:
    """In the smallest world of each: what a larger one's pin excuses is seen above, without ranks."""
    pins = SHIPPED_PINS.get((Version(torch.__version__).public, "cpu"), {})
    # A rank that torch has ended, or a call that raises, never comes to the fault.
    cases = [case for case, pin in pins.items() if pin.marks and not is_end(pin.marks[0])]
    if not cases:
        pytest.skip(f"nothing is pinned for torch {torch.__version__}")
    # Operators are many and alike: every eighth.
    operators = [case for case in cases if case.startswith("operator/")]
    cases = [case for case in cases if case not in operators] + operators[::8]
    smallest = {re.sub(r"-ws\d+", "", case): case for case in sorted(cases, reverse=True)}.values()

    words = [word for case in smallest for word in ("--case", case)]
    pinned = json.dumps({case: [mark.where for mark in pins[case].marks] for case in smallest})
    more = {"FAULT": fault, "PINNED": pinned}
    ran = suite("--device", "cpu", "--include", "faults_anywhere", *words, **more)

    assert ran.statuses("here-cpu") == dict.fromkeys(smallest, status)


def test_the_pins_file_is_as_the_command_writes_it() -> None:
    for path in SHIPPED.glob("*.pins.json"):
        assert written(read(path.read_text("utf-8"))) == path.read_text("utf-8")
        assert json.loads(path.read_text("utf-8"))
