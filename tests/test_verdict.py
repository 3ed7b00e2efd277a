"""What is wrong is red, and the account says where it began."""

from __future__ import annotations

import pytest
from conftest import Ran, Suite


@pytest.fixture(scope="module")
def wrong(suite: Suite) -> Ran:
    return suite("--include", "wrong_strategies", "-k", "multiple_forward and wrong")


@pytest.mark.parametrize("case", ["ws2-float32", "ws2-float64", "ws4-float32", "ws4-float64"])
@pytest.mark.parametrize(
    ("strategy", "begins"),
    [
        pytest.param("wrong_sum", "step 0, gradient 'inner.weight', rank 0", id="not averaged"),
        pytest.param("wrong_local", "step 0, gradient 'inner.weight', rank 0", id="not exchanged"),
        pytest.param("wrong_second_forward", "step 0, gradient 'inner.", id="one forward lost"),
        pytest.param("wrong_stale", "step 1, loss", id="stale parameters"),
        pytest.param("wrong_padding", "step 0, gradient 'inner.", id="padding"),
    ],
)
def test_wrong_strategy_fails_where_it_goes_wrong(
    wrong: Ran, strategy: str, begins: str, case: str
) -> None:
    name = f"multiple_forward/{strategy}-{case}"

    assert wrong.statuses("here-cpu")[name] == "failed"
    assert wrong.text("here-cpu", name).startswith(f"failed: {begins}")
    assert float(wrong.properties("here-cpu")[name]["ratio"]) > 100


def test_every_failure_says_how_to_run_it_again(wrong: Ran) -> None:
    case = "multiple_forward/wrong_sum-ws2-float32"

    assert f"distparity run --device cpu --case {case} --include wrong_strategies" in wrong.output
    assert wrong.code == 1
