"""A case that passes without being distributed, or on another device, is an error with its own words."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Suite

from distparity.session.distribution import fault


def told(
    rows: list[int],
    talked: list[list[int]] | None,
    shared: int = 1,
    elsewhere: tuple[str, ...] = (),
) -> dict[str, Any]:
    return {
        "rows": rows,
        "of": 4,
        "talked": talked,
        "rows_shared_by": shared,
        "parameters_on": None,
        "elsewhere": list(elsewhere),
        "device": "xpu",
    }


WORLD = [[0, 1]]


@pytest.mark.parametrize(
    ("ranks", "says"),
    [
        pytest.param([told([0, 1], WORLD), told([2, 3], WORLD)], None, id="right"),
        pytest.param([told([0, 1, 2, 3], None)], None, id="one rank"),
        pytest.param([told([0, 1], None), told([2, 3], None)], None, id="nobody counts"),
        pytest.param([told([0, 1, 2, 3], WORLD, 2)] * 2, None, id="rows that are shared by declaration"),
        pytest.param([told([0], [[0, 1]]), told([1], [[0, 1], [1, 2]]), told([2], [[1, 2]]), told([3], [[3, 0]])], None, id="through others"),
        pytest.param([told([0, 1], []), told([2, 3], [])], "no collective during training", id="alone"),
        pytest.param([told([n], [[n // 2 * 2, n // 2 * 2 + 1]]) for n in range(4)], r"ranks \[0, 1\] and \[2, 3\] exchanged no data", id="halves"),
        pytest.param([told([0, 1, 2, 3], WORLD), told([], WORLD)], "rank 1 has no rows", id="no rows"),
        pytest.param([told([0, 1, 2, 3], WORLD)] * 2, "ranks 0, 1 train on row 0 of the batch; the strategy declares 1", id="rows of others"),
        pytest.param([told([0, 1], WORLD), told([2], WORLD)], "no rank trains on row 3", id="a row is left out"),
        pytest.param([told([0, 1], WORLD, 1, ("cpu",))], "rank 0 has parameters on cpu; the case's device is xpu", id="another device"),
    ],
)  # fmt: skip
def test_fault_of_what_ranks_told(ranks: list[dict[str, Any]], says: str | None) -> None:
    found = fault(ranks)

    assert found is None if says is None else found is not None
    if says is not None:
        with pytest.raises(AssertionError, match=says):
            raise AssertionError(found)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(
            ("--include", "undistributed", "--case", "basic/each_alone-ws2-float32"),
            "error: no evidence: no collective during training: the 2 ranks never exchanged data",
            id="every rank trains the whole batch",
        ),
        pytest.param(
            ("--include", "undistributed", "--case", "basic/first_does_all-ws2-float32"),
            "error: no evidence: ranks 0, 1 train on row 0 of the batch",
            id="rank 0 does all and broadcasts",
        ),
        pytest.param(
            ("--include", "undistributed", "--case", "basic/halves-ws4-float32"),
            "error: no evidence: the world of 4 is split: ranks [0, 1] and [2, 3] exchanged no data",
            id="two halves that never talk",
        ),
    ],
)
def test_pass_without_distribution_is_an_error(
    suite: Suite, words: tuple[str, ...], says: str
) -> None:
    ran = suite("--device", "cpu", *words)

    assert ran.text("here-cpu", words[-1]).startswith(says), ran.output


def test_device_that_trains_on_the_cpu_is_an_error(suite: Suite) -> None:
    case = "basic/ddp-ws2-float32"

    plugin = ("--device-plugin", "faulty_devices:Impostor", "--device", "faulty")
    ran = suite(*plugin, "--case", case)

    text = ran.text("here-faulty", case)
    assert text.startswith(
        "error: no evidence: rank 0 has parameters on cpu; the case's device is faulty"
    )
