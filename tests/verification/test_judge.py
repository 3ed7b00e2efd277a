"""What the verdict calls wrong, and where it says that it began; on trajectories made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import DTYPES, oracle, right, tolerance, verdict

from distparity.core.participation import Participation
from distparity.training.trajectory import Trajectory
from distparity.verification.verdict import judge, same_bits

Change = Callable[[list[Trajectory]], None]


def on(rank: int, step: int | None, kind: str, name: str, how: Callable[..., object]) -> Change:
    """Change a copy of one tensor of one rank in place."""

    def change(ranks: list[Trajectory]) -> None:
        group = getattr(ranks[rank] if step is None else ranks[rank].steps[step], kind)
        group[name] = group[name].clone()
        how(group[name])

    return change


def instead(step: int, kind: str, name: str, how: Callable[..., torch.Tensor | None]) -> Change:
    """Put another tensor in the place of one, on all ranks."""

    def change(ranks: list[Trajectory]) -> None:
        for run in ranks:
            group = getattr(run.steps[step], kind)
            group[name] = how(group[name])

    return change


def everywhere(step: int | None, kind: str, name: str, how: Callable[..., object]) -> Change:
    """The same on all ranks, so that replicas agree."""

    def change(ranks: list[Trajectory]) -> None:
        for rank in range(len(ranks)):
            on(rank, step, kind, name, how)(ranks)

    return change


def put(place: tuple[int, ...], value: object) -> Callable[[torch.Tensor], None]:
    return lambda tensor: tensor.__setitem__(place, value)


def take_away(rank: int, step: int, kind: str, name: str) -> Change:
    return lambda ranks: getattr(ranks[rank].steps[step], kind).pop(name)


def bring_in(rank: int, step: int, kind: str, value: torch.Tensor | None) -> Change:
    return lambda ranks: getattr(ranks[rank].steps[step], kind).update(other=value)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_right_ranks_pass(ranks: int, dtype: torch.dtype) -> None:
    found = verdict(exact=oracle(ranks), dtype=dtype)

    assert found.passed, found.divergences[0]
    assert 0 < found.ratio < 1


WRONG = {
    "an element of a gradient": everywhere(1, "gradient", "weight", lambda g: g[2, 1].mul_(1 + 1e-4)),
    "an element of a parameter": everywhere(1, "parameter", "weight", lambda p: p[0, 0].add_(1e-4)),
    "a sum over ranks": everywhere(0, "gradient", "weight", lambda g: g.mul_(2)),
    "an element that is NaN": everywhere(1, "gradient", "weight", put((2, 1), math.nan)),
    "an element that is infinite": everywhere(1, "parameter", "bias", put((2,), math.inf)),
    "infinity of the other sign": everywhere(1, "buffer", "mask", put((0, 1), math.inf)),
    "a number where infinity is": everywhere(1, "buffer", "mask", put((0, 1), -1e38)),
    "infinity where a number is": everywhere(1, "buffer", "mask", put((1, 0), -math.inf)),
    "a replica of another bit": on(1, 2, "parameter", "bias", lambda p: p.mul_(1 + 2.0**-23)),
    "a replica of a momentum": on(1, None, "optimizer", "weight.square", lambda p: p.mul_(1 + 2.0**-23)),
    "a dtype": instead(1, "parameter", "bias", torch.Tensor.double),
    "a shape": instead(1, "gradient", "bias", lambda g: g[None]),
    "a missing tensor": take_away(1, 1, "gradient", "bias"),
    "a missing buffer": take_away(0, 1, "buffer", "mean"),
    "an additional tensor": bring_in(1, 1, "gradient", torch.ones(2)),
    "an additional gradient of None": bring_in(0, 1, "gradient", None),
    "a loss on one rank": on(1, 1, "loss", "loss", lambda loss: loss.add_(1e-4)),
    "an initial number": everywhere(None, "initial", "bias", lambda p: p.mul_(1 + 2.0**-23)),
    "an initial zero's sign": everywhere(None, "initial", "mask", put((0, 0), -0.0)),
    "an integer over 2**53": everywhere(2, "buffer", "turns", lambda n: n.sub_(1)),
    "an optimizer's counter": everywhere(None, "optimizer", "weight.step", lambda n: n.add_(1e-6)),
    "a second moment": everywhere(None, "optimizer", "weight.square", lambda n: n.mul_(1 + 1e-4)),
    "a step that was not recorded": lambda ranks: ranks[0].steps.pop(),
    "a gradient of None": instead(1, "gradient", "bias", lambda _: None),
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_red(change: Change) -> None:
    found = verdict(change)

    assert not found.passed
    assert found.ratio > 1


def test_losses_that_are_wrong_on_two_ranks_and_right_on_average_are_wrong() -> None:
    def change(ranks: list[Trajectory]) -> None:
        on(0, 1, "loss", "loss", lambda loss: loss.add_(0.25))(ranks)
        on(1, 1, "loss", "loss", lambda loss: loss.sub_(0.25))(ranks)

    found = verdict(change)

    assert [d.rank for d in found.divergences] == [0, 1]
    assert "step 1, loss 'loss', rank 1" in str(found.divergences[1])


def test_losses_over_parts_of_rows_are_compared_by_their_mean() -> None:
    def change(ranks: list[Trajectory]) -> None:
        on(0, 1, "loss", "loss", lambda loss: loss.add_(0.25))(ranks)
        on(1, 1, "loss", "loss", lambda loss: loss.sub_(0.25))(ranks)

    assert verdict(change, splits_rows=True).passed
    assert not verdict(
        on(0, 1, "loss", "loss", lambda loss: loss.add_(0.25)), splits_rows=True
    ).passed


def test_the_loss_of_one_rank_is_told_with_its_own_value() -> None:
    found = verdict(on(1, 1, "loss", "loss", lambda loss: loss.fill_(7.0)))

    (divergence,) = found.divergences
    assert (divergence.rank, divergence.found) == (1, 7.0)
    assert divergence.expected == float(oracle().parts[1].steps[1].loss["loss"])


def test_ranks_that_share_a_batch_are_compared_with_its_loss() -> None:
    exact = oracle()

    def change(ranks: list[Trajectory]) -> None:
        for run in ranks:
            run.rows = list(exact.trajectory.rows or ())
            for step, whole in zip(run.steps, exact.trajectory.steps, strict=True):
                step.loss = {"loss": whole.loss["loss"].float()}

    assert verdict(change, exact).passed


def test_where_a_rank_s_rows_are_no_parts_the_mean_is_compared() -> None:
    def forget(ranks: list[Trajectory]) -> None:
        for run in ranks:
            run.rows = None

    def mend(ranks: list[Trajectory]) -> None:
        forget(ranks)
        on(0, 1, "loss", "loss", lambda loss: loss.add_(0.25))(ranks)
        on(1, 1, "loss", "loss", lambda loss: loss.sub_(0.25))(ranks)

    def spoil(ranks: list[Trajectory]) -> None:
        forget(ranks)
        on(0, 1, "loss", "loss", lambda loss: loss.add_(0.25))(ranks)

    assert verdict(forget).passed
    assert verdict(mend).passed
    assert not verdict(spoil).passed


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param([0, 1, 2, 3], "rows [4, 5, 6, 7] on no rank", id="rank 0's"),
        pytest.param([3, 4, 5, 6, 7], "some rows on more ranks than others", id="one too many"),
    ],
)
def test_every_row_is_on_as_many_ranks_as_any_other(rows: list[int], says: str) -> None:
    def change(ranks: list[Trajectory]) -> None:
        ranks[1].rows = rows

    assert any(d.what == says for d in verdict(change).divergences)


def test_the_first_divergence_is_the_first_in_time() -> None:
    def change(ranks: list[Trajectory]) -> None:
        for step in (2, 1):
            everywhere(step, "parameter", "weight", lambda p: p.add_(1))(ranks)
            everywhere(step, "gradient", "bias", lambda p: p.add_(1))(ranks)

    first = verdict(change).divergences[0].quantity

    assert (first.step, first.kind, first.name) == (1, "gradient", "bias")


def test_what_is_exempt_is_not_compared_and_all_else_is() -> None:
    change = everywhere(1, "buffer", "mean", lambda b: b.add_(1))

    assert not verdict(change).passed
    assert verdict(change, exempt={"buffer": "for a reason"}).passed
    assert not verdict(change, exempt={"loss": "for a reason"}).passed


def test_a_rank_without_a_part_records_nothing() -> None:
    exact = oracle()
    out = Participation(0, range(2), 3, ("parameter", "buffer"))
    who = [out, Participation(1, range(3), 3)]
    ranks = right(exact)
    ranks[1].steps[2].loss = {"loss": exact.trajectory.steps[2].loss["loss"].float()}
    ranks[0].steps[2].loss, ranks[0].steps[2].gradient, ranks[0].optimizer = {}, {}, {}
    for run in ranks:
        run.rows = None

    assert judge(tolerance(exact), ranks, participation=who).passed

    ranks[0].steps[2].gradient = dict(ranks[1].steps[2].gradient)
    (found,) = judge(tolerance(exact), ranks, participation=who).divergences
    assert found.what == "recorded although this rank takes no part in the step"


@pytest.mark.parametrize("empty", ["ranks", "reference runs", "steps"])
def test_nothing_to_compare_is_an_error(empty: str) -> None:
    known = tolerance()
    if empty == "reference runs":
        known.reference_runs = []
    if empty == "steps":
        known.oracle.trajectory.steps = []

    with pytest.raises(ValueError, match="needs an oracle"):
        judge(known, [] if empty == "ranks" else right(oracle()))


# -- replicas, where a device's sums over ranks need not be equal to the bit --------------------------


def in_the_last_bit(ranks: list[Trajectory]) -> None:
    on(1, 0, "gradient", "weight", lambda g: g.mul_(1 + 2.0**-23))(ranks)
    on(1, 0, "parameter", "weight", lambda p: p.mul_(1 + 2.0**-23))(ranks)


def by_more(ranks: list[Trajectory]) -> None:
    on(1, 0, "gradient", "weight", lambda g: g.add_(2.0**-20 * g.abs().max()))(ranks)


def test_replicas_are_equal_to_the_bit_unless_a_device_says_otherwise() -> None:
    assert verdict(in_the_last_bit).ratio == math.inf
    assert verdict(in_the_last_bit, sums_apart=True).passed


def test_replicas_may_differ_by_the_order_of_a_sum_and_by_no_more() -> None:
    found = verdict(by_more, sums_apart=True)

    assert any("by more than the order of a sum" in d.what for d in found.divergences)


# -- properties ---------------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**16)
RANKS = st.sampled_from([2, 3, 4, 8])


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, ranks=RANKS, turn=st.integers(1, 7))
def test_the_ranks_order_does_not_matter(seed: int, ranks: int, turn: int) -> None:
    exact = oracle(ranks, seed=seed)
    known, runs = tolerance(exact), right(exact)
    turned = runs[turn % ranks :] + runs[: turn % ranks]

    assert judge(known, runs).ratio == judge(known, turned).ratio


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, power=st.integers(-20, 20))
def test_ratios_do_not_depend_on_the_unit_of_gradients(seed: int, power: int) -> None:
    def largest(size: float) -> float:
        exact = oracle(seed=seed, size=size)
        wrong = right(exact)
        everywhere(1, "gradient", "weight", lambda g: g[1, 1].add_(g.abs().max() / 100))(wrong)
        found = judge(tolerance(exact), wrong)
        return found.growth[1]["gradient"]

    assert largest(2.0**power) == pytest.approx(largest(1.0), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=SEEDS,
    step=st.integers(0, 2),
    place=st.integers(0, 11),
    factor=st.sampled_from([0.0, -1.0, 0.5, 1.001, 2.0, math.nan, math.inf]),
)
def test_no_wrong_element_passes(seed: int, step: int, place: int, factor: float) -> None:
    exact = oracle(seed=seed)
    known = exact.trajectory.steps[step].gradient["weight"].flatten()[place].abs()
    # What is next to nothing beside its row and column may be lost.
    if known < 1e-2:
        return
    found = verdict(
        everywhere(step, "gradient", "weight", lambda g: g.flatten()[place].mul_(factor)), exact
    )

    assert not found.passed
    assert found.divergences[0].index == (place // 3, place % 3)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param([0.0, 1.0], [-0.0, 1.0], [False, True], id="zero's sign"),
        pytest.param([math.inf], [math.inf], [True], id="infinity"),
        pytest.param([2**60], [2**60 + 1], [False], id="integers over 2**53"),
        pytest.param([True, False], [True, True], [True, False], id="booleans"),
    ],
)
def test_bits(one: list[float], other: list[float], same: list[bool]) -> None:
    assert same_bits(torch.tensor(one), torch.tensor(other)).tolist() == same


def test_bits_of_two_float_dtypes_are_compared_by_value() -> None:
    assert same_bits(torch.tensor([1.5, -0.0]), torch.tensor([1.5, 0.0]).double()).tolist() == [
        True,
        False,
    ]
