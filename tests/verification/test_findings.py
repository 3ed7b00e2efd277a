"""What is found, as a record: places, the largest ratio, the first divergence in words."""

from __future__ import annotations

import math

import pytest
import torch

from distparity.core.judgement import Judgement, Size
from distparity.verification.findings import Divergence, Quantity, Verdict, at, size_of

BIAS = Quantity(1, "gradient", "bias")


def test_a_verdict_without_divergences() -> None:
    verdict = Verdict(0.5, 0.25, growth=[{"loss": 0.5}])

    assert verdict.passed
    assert verdict.conclude() == Judgement(0.5, 0.25, None, ({"loss": 0.5},))


@pytest.mark.parametrize("ranks", [(3, 0), (3, 0, 1), (3, 0, 1, 2)], ids=len)
def test_a_verdict_s_first_divergence_is_its_message(ranks: tuple[int, ...]) -> None:
    first, *more = (Divergence(BIAS, rank, "missing") for rank in ranks)
    verdict = Verdict(0.5, diagnosis="like nothing")
    for divergence in (first, *more):
        verdict.note(divergence)

    assert not verdict.passed
    assert verdict.divergences == [first, *more]
    found = verdict.conclude()
    assert found == Judgement(math.inf, 0.0, "like nothing", samples=(first, more[-1]))
    assert found.first == first
    assert found.message == "step 1, gradient 'bias', rank 3: missing (ratio inf)"


def test_a_single_divergence_is_one_sample() -> None:
    verdict = Verdict()
    verdict.note(Divergence(BIAS, 3, "missing"))

    assert verdict.conclude().samples == (Divergence(BIAS, 3, "missing"),)


@pytest.mark.parametrize(
    ("expected", "found", "size"),
    [
        pytest.param([3.0, 4.0], [6.0, 8.0], Size(4.0, 4.0, 2.0), id="twice"),
        pytest.param([3.0, -4.0], [3.0, 4.0], Size(8.0, 4.0, -7 / 25), id="another sign"),
        pytest.param([0.0, 0.0], [1.0, 0.0], Size(1.0, 0.0, 0.0), id="of nothing"),
        pytest.param([1.0, 1.0], [math.inf, 1.0], None, id="infinite"),
    ],
)
def test_how_wrong_a_tensor_is(
    expected: list[float], found: list[float], size: Size | None
) -> None:
    assert size_of(torch.tensor(expected), torch.tensor(found)) == size


@pytest.mark.parametrize(("noted", "ratio"), [(0.5, 1.5), (2.0, 2.0)], ids=["smaller", "larger"])
def test_the_largest_ratio_is_kept(noted: float, ratio: float) -> None:
    verdict = Verdict(1.5)
    verdict.note(Divergence(BIAS, 0, "off", noted))

    assert verdict.ratio == ratio


@pytest.mark.parametrize(
    ("shape", "index"),
    [((6,), (5,)), ((2, 3), (1, 2)), ((3, 2), (2, 1)), ((2, 1, 3), (1, 0, 2))],
    ids=str,
)
def test_a_place_is_an_index(shape: tuple[int, ...], index: tuple[int, ...]) -> None:
    expected = torch.arange(6.0).reshape(shape)

    assert at(BIAS, 2, "off", 3.0, 5, expected, 2 * expected) == Divergence(
        BIAS, 2, "off", 3.0, index, 5.0, 10.0, Size(5.0, 5.0, 2.0)
    )


SIZES = {
    "of the other sign": ([3.0, -4.0], [-3.0, 4.0], Size(8.0, 4.0, -1.0)),
    "in one element": ([3.0, -4.0], [3.0, 21.0], Size(25.0, 4.0, -3.0)),
    "where nothing is expected": ([0.0, 0.0], [1.0, -2.0], Size(2.0, 0.0, 0.0)),
    "that is not finite": ([1.0, 2.0], [1.0, math.nan], None),
    "where it should not be finite": ([1.0, math.inf], [1.0, 2.0], None),
}


@pytest.mark.parametrize(("expected", "found", "size"), SIZES.values(), ids=list(SIZES))
def test_the_size_of_an_error(expected: list[float], found: list[float], size: Size | None) -> None:
    assert size_of(torch.tensor(expected), torch.tensor(found)) == size


def test_a_place_in_a_scalar() -> None:
    found = at(BIAS, 0, "off", 3.0, 0, torch.tensor(1.0), torch.tensor(2.0))

    assert (found.index, found.expected, found.found) == ((), 1.0, 2.0)
