"""A known defect that is pinned excuses its own numbers, and no other fault of its case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import Suite
from packaging.version import Version

from distparity.core.case import Case
from distparity.core.judgement import Divergence, Quantity
from distparity.core.outcome import Outcome, Status
from distparity.expectations import SHIPPED, Surroundings, Wrong, assign, load
from distparity.expectations.file import parse
from distparity.expectations.pins import line

CASE = Case("clipping", "fsdp1", 2, "float64", "cpu")
ENTRY = """
[[expect]]
scenario = "clipping"
device = "cpu"
torch = ">=2.4"
failure = "wrong numbers"
quantity = "gradient"
pins = [
  {{ case = "clipping/fsdp1-ws2-float64", torch = "{torch}", first = "step 0, gradient 'w', rank 0", expected = 0.5, found = 0.25, diagnosis = "halved" }},
]
reason = "it halves"
link = "https://example.org/1"
"""
FIRST = Divergence(Quantity(0, "gradient", "w"), 0, "off by 0.25", 1e9, (0,), 0.5, 0.25)
FACTS = {**CASE.facts, "ratio": 1e9, "diagnosis": "halved"}
KNOWN = Outcome(Status.FAILED, str(FIRST), "", FACTS, failure="wrong numbers", first=FIRST)


def judged(outcome: Outcome, torch: str = "2.13.0", pinned: str = "==2.13.*") -> Status:
    entries = parse(ENTRY.format(torch=pinned), "file")
    return assign(entries, Surroundings(torch, ("cpu",), {}), [CASE])[CASE.id].judge(outcome).status


def test_what_is_pinned_is_expected() -> None:
    assert judged(KNOWN) is Status.EXPECTED


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"first": replace(FIRST, found=-0.75)}, id="another value"),
        pytest.param({"first": replace(FIRST, expected=0.6)}, id="another oracle"),
        pytest.param({"first": replace(FIRST, rank=1)}, id="another rank"),
        pytest.param({"first": replace(FIRST, quantity=Quantity(1, "gradient", "w"))}, id="a later step"),
        pytest.param({"first": replace(FIRST, quantity=Quantity(0, "gradient", "b"))}, id="another tensor"),
        pytest.param({"first": replace(FIRST, found=None, expected=None)}, id="no values"),
        pytest.param({"facts": {**FACTS, "diagnosis": "summed"}}, id="another diagnosis"),
        pytest.param({"facts": {**FACTS, "diagnosis": ""}}, id="no diagnosis"),
    ],
)  # fmt: skip
def test_another_fault_of_the_same_case_is_not_excused(other: dict[str, Any]) -> None:
    assert judged(replace(KNOWN, **other)) is Status.FAILED


def test_last_digits_are_the_processor_s() -> None:
    assert judged(replace(KNOWN, first=replace(FIRST, found=0.25001))) is Status.EXPECTED


def test_pin_is_of_its_release_alone() -> None:
    other = replace(KNOWN, first=replace(FIRST, found=-0.75))

    assert judged(other, torch="2.8.0") is Status.EXPECTED
    assert judged(other, torch="2.8.0", pinned=">=2.4") is Status.FAILED


def test_update_makes_of_a_message_what_describes_it() -> None:
    made = line(CASE.id, "2.13.0", str(FIRST), "halved")

    assert made == {
        "case": CASE.id,
        "torch": "==2.13.0",
        "first": "step 0, gradient 'w', rank 0",
        "expected": 0.5,
        "found": 0.25,
        "diagnosis": "halved",
    }
    assert line(CASE.id, "2.13.0", "step 0, gradient 'w', rank 0: missing (ratio inf)", "") is None


def test_pin_without_a_number_is_refused() -> None:
    with pytest.raises(
        Wrong, match=r"file:2: pins: each needs case, expected, first, found, torch"
    ):
        parse(ENTRY.format(torch="==2.13.*").replace("found = 0.25, ", ""), "file")


def test_injected_fault_in_every_pinned_case_is_red(suite: Suite) -> None:
    here = Surroundings(torch.__version__, ("cpu",), {})
    pins = [pin for entry in load([SHIPPED]).entries for pin in entry.pins]
    cases = [pin.case for pin in pins if pin.torch.contains(Version(here.torch).public)]
    if not cases:
        pytest.skip(f"nothing is pinned for torch {here.torch}")

    words = [word for case in cases for word in ("--case", case)]
    ran = suite("--device", "cpu", "--include", "times_minus_three", *words)

    assert ran.statuses("here-cpu") == dict.fromkeys(cases, "failed")
