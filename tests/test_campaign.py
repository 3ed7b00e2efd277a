"""Fifty rounds of the campaign of faults, for real; ``nox -s campaign`` does as many as one likes.

The scheduler alone goes through many more, with ranks in the test's process:
``test_scheduler_states.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
sys.path.append(str(Path(__file__).parent / "included"))

import campaign
import drawn
import pytest
from faulty_runs import OTHERS, cases

from distparity.core.outcome import Outcome, Status

FAULTS = [f"1-{number}" for number in range(50)]
BATCHES = list(campaign.batches(FAULTS))


def test_a_seed_draws_the_same_faults_again() -> None:
    assert list(map(drawn.draw, FAULTS)) == list(map(drawn.draw, FAULTS))


def test_every_process_and_every_moment_is_drawn() -> None:
    found = [drawn.draw(f"1-{number}") for number in range(1000)]

    assert {one.who for one in found} == set(drawn.OFTEN)
    assert {one.moment for one in found} == set(drawn.MOMENTS)
    inside = {(one.who, one.action) for one in found if one.moment not in ("idle", "ending")}
    most = {(who, action) for who, actions in drawn.ACTIONS.items() for action in actions}
    assert len(inside) > 0.9 * len(most)


ALLOWED = {
    "a rank stops": (("rank", "training", "stop"), {"timeout"}),
    "the judge stops": (("judge", "start", "stop"), {"error"}),
    "an idle rank is stopped": (("rank", "idle", "stop"), {"passed"}),
    "the controller is killed": (("controller", "training", "kill"), {"missing"}),
    "the controller is killed after a case": (("controller", "idle", "kill"), {"passed"}),
    "the controller is killed after all": (("controller", "ending", "kill"), {"passed"}),
}


@pytest.mark.parametrize(("what", "allowed"), ALLOWED.values(), ids=ALLOWED)
def test_what_a_case_may_be(what: tuple[str, str, str], allowed: set[str]) -> None:
    assert drawn.Drawn(*what, every=False).allowed == allowed


def test_each_fault_has_one_run() -> None:
    found = list(campaign.batches([f"1-{number}" for number in range(300)]))

    assert sorted(fault for batch in found for fault in batch) == sorted(
        f"1-{number}" for number in range(300)
    )
    assert all(len(batch) == 1 or not any(drawn.draw(f).alone for f in batch) for batch in found)


@pytest.mark.parametrize("batch", BATCHES, ids=[batch[0] for batch in BATCHES])
def test_no_invariant_is_violated(batch: list[str]) -> None:
    ran = campaign.run(batch)

    assert campaign.check(batch, ran, {}).wrong == []
    assert {ran.found[case].status for case in cases(*OTHERS, sizes=[2])} == {Status.PASSED}


WRONG = {
    "an innocent case failed": ({"found": {"a": Outcome(Status.FAILED, "x")}}, "a is failed: x"),
    "an innocent case is gone": ({"found": {}}, "a is missing: "),
    "the XML says something else": ({"xml": {"a": "failed"}}, "the XML and the side file disagree"),
    "something is left": ({"left": ["process 7"]}, "left: process 7"),
    "the exit code is wrong": ({"code": 1}, "exit code 1"),
    "an error of ours": (
        {"output": "internal error in distparity: x"},
        "internal error in distparity: x",
    ),
}


@pytest.mark.parametrize(("change", "complaint"), WRONG.values(), ids=WRONG)
def test_a_violation_is_seen(change: dict[str, object], complaint: str) -> None:
    quiet = {"a": Outcome(Status.PASSED, "ratio 0.1")}
    right = {"found": quiet, "xml": {"a": "passed"}, "left": [], "code": 0, "output": ""}
    rest: dict[str, object] = {"known": {}, "notes": {}}

    assert campaign.check([], campaign.Ran(**{**right, **rest}), quiet).wrong == []  # type: ignore[arg-type]
    changed = campaign.Ran(**{**right, **rest, **change})  # type: ignore[arg-type]
    assert complaint in campaign.check([], changed, quiet).wrong
