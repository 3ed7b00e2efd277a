"""Records that cross between processes: to JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distparity.core.judgement import Divergence, Judgement, Quantity
from distparity.core.outcome import Outcome, Status
from distparity.core.record import Record


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner(Record):
    number: float
    pair: tuple[int, int] | None = None


@dataclass(frozen=True)
class Outer(Record):
    name: str
    flag: bool = False
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    colour: Colour = Colour.RED
    loose: Any = None


floats = st.floats(allow_nan=False)
inners = st.builds(Inner, floats, st.none() | st.tuples(st.integers(), st.integers()))
outers = st.builds(
    Outer,
    st.text(),
    st.booleans(),
    st.none() | inners,
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(st.text(), st.lists(st.text(), max_size=3).map(tuple), max_size=3),
)


@given(outers)
def test_what_goes_through_json_comes_back(record: Outer) -> None:
    text = json.dumps(record.to_json(), allow_nan=False)

    assert Outer.from_json(json.loads(text)) == record


def test_a_number_that_is_none_comes_back_as_such() -> None:
    assert math.isnan(Inner.from_json(Inner(math.nan).to_json()).number)


WHOLE = Outer("x", inner=Inner(1.0)).to_json()
WRONG = {
    "missing": ({k: v for k, v in WHOLE.items() if k != "name"}, "Outer lacks the field 'name'"),
    "unknown": ({**WHOLE, "nmae": "y"}, "Outer has no field 'nmae'"),
    "text for a truth": ({**WHOLE, "flag": "yes"}, "flag: 'yes' is not of type bool"),
    "number for a text": ({**WHOLE, "name": 1}, "name: 1 is not of type str"),
    "truth for a number": (
        {**WHOLE, "inner": {"number": True, "pair": None}},
        "number: True is not of type float",
    ),
    "too long": ({**WHOLE, "inner": {"number": 1, "pair": [1, 2, 3]}}, "pair: "),
    "no record": ({**WHOLE, "inner": 7}, "inner: 7 is not of type Inner"),
    "no such member": ({**WHOLE, "colour": "blue"}, "'blue' is not a valid Colour"),
    "no table": ({**WHOLE, "by": []}, r"by: \[\] is not of type dict"),
}


@pytest.mark.parametrize(("data", "says"), WRONG.values(), ids=WRONG)
def test_other_data_are_refused_by_field(data: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Outer.from_json(data)


def test_an_outcome_keeps_where_its_numbers_were_wrong_first() -> None:
    first = Divergence(Quantity(1, "gradient", "w"), 0, "off by 1", math.inf, (0, 2), 1.0, 2.0)
    outcome = Outcome(Status.FAILED, str(first), failure="wrong numbers", first=first)

    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    assert str(first) == (
        "step 1, gradient 'w', rank 0: off by 1 at [0, 2]: expected 1, found 2 (ratio inf)"
    )


def test_a_judgement_passes_where_nothing_diverged() -> None:
    off = Divergence(Quantity(None, "sum", "w"), 0, "off")

    assert Judgement(0.5, 1e-7).passed
    assert not Judgement(2.0, 1e-7, samples=(off,)).passed
