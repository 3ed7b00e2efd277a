"""Ranks that no longer make the same collectives, and what is said of that."""

from __future__ import annotations

import re

import pytest
from faulty_runs import LIMIT, OTHERS, SIZES, Suite, assert_alike, cases, listed

from distparity.core.outcome import Status

#: Where one rank goes astray -> what the others wait in meanwhile. gloo itself makes a
#: reduce-scatter of all-reduces, and its recorder calls it so.
ASTRAY = {
    "forward-ddp": "broadcast",
    "backward-ddp": "all_reduce",
    "read-ddp": "all_reduce",
    "forward-fsdp1": "all_gather",
    "backward-fsdp1": "(all_reduce|reduce_scatter)",
    "read-fsdp1": "all_gather",
    "forward-fsdp2": "all_gather",
    "backward-fsdp2": "all_gather",
    "read-fsdp2": "all_gather",
    "read-asynchronous": "all_reduce",
    "read-functional": "all_reduce",
    "read-coalesced-sum": "all_reduce",
    "read-coalesced-gather": "all_gather",
    "read-coalesced-scatter": "(all_reduce|reduce_scatter)",
    "read-message": "send",
    "read-in-order": "all_reduce",
    "read-future": "all_reduce",
    "read-other-thread": "all_reduce",
    "read-other-group": r"all_gather\w* #2 of \[[\d, ]+\] float32 in the group .*",
}
#: Who keeps the record of collectives -> the size of torch's flight recorder. With none, as with
#: gloo before 2.8 and a vendor's backend, it is ours.
RECORDS = {"torch": "64", "ours": "0"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(tmp_path_factory.mktemp("undisturbed"), listed(cases(*OTHERS))).run()


@pytest.fixture(scope="module", params=RECORDS)
def astray(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    environment = {"TORCH_FR_BUFFER_SIZE": RECORDS[request.param]}
    arguments = listed(cases(*OTHERS, *(f"astray-{name}" for name in ASTRAY)))
    arguments += ["--include", "astray", "--case-timeout", str(LIMIT), "--worlds", "16"]
    return Suite(tmp_path_factory.mktemp("astray"), arguments, environment).run()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("where", ASTRAY)
def test_ranks_out_of_step_are_told_from_a_hang(astray: Suite, where: str, size: int) -> None:
    """Ranks are compared by their collectives, whether Python, autograd or C++ began them."""
    outcome = astray.journal()[f"multiple_forward/astray-{where}-ws{size}-float32"]
    if outcome.status is Status.NOT_SUPPORTED:
        pytest.skip(outcome.message)

    told = rf"out of step: ranks? 0.* in {ASTRAY[where]}\w*( #\d+)?.*; rank {size - 1} in recv #\d+"

    assert outcome.status is Status.TIMEOUT
    assert re.search(told, outcome.message)


def test_who_goes_astray_goes_alone(undisturbed: Suite, astray: Suite) -> None:
    assert_alike(undisturbed, astray)


def test_who_goes_astray_leaves_nothing(astray: Suite) -> None:
    assert astray.leftovers() == []
