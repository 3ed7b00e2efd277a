"""What the verdict calls wrong, and where it says that it began; on trajectories made by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import DTYPES, oracle, right, tolerance, verdict

from distparity.core.participation import Participation
from distparity.training.reference import Oracle
from distparity.training.trajectory import Step, Trajectory
from distparity.verification.findings import Quantity
from distparity.verification.tolerance import Allowed, Tolerance
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


def on_one(
    rank: int, step: int, kind: str, name: str, how: Callable[..., torch.Tensor | None]
) -> Change:
    """Put another tensor in the place of one, on one rank."""

    def change(ranks: list[Trajectory]) -> None:
        instead(step, kind, name, how)([ranks[rank]])

    return change


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
    "a gradient of NaN alone": everywhere(1, "gradient", "bias", lambda g: g.fill_(math.nan)),
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

    words = "^a verdict needs an oracle with steps, reference runs and ranks$"
    with pytest.raises(ValueError, match=words):
        judge(known, [] if empty == "ranks" else right(oracle()))


def test_every_rank_has_its_steps() -> None:
    with pytest.raises(ValueError, match="zip"):
        judge(tolerance(), right(oracle()), participation=[Participation(0, range(3), 3)])


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_an_allowed_error_that_is_no_number_allows_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    known, place = tolerance(), Quantity(1, "gradient", name)
    of, nothing = known.of, Allowed(known.of(place).error * math.nan, 1.0)
    monkeypatch.setattr(known, "of", lambda one: nothing if one == place else of(one))

    found = judge(known, right(oracle()))

    assert {str(one.quantity) for one in found.divergences} == {str(place)}
    assert found.ratio == math.inf


def test_a_ratio_beyond_all_numbers_is_infinite() -> None:
    exact, run = (
        Trajectory(steps=[Step(gradient={"x": torch.tensor([off], dtype=torch.float64)})])
        for off in (0.0, 1.0)
    )

    found = judge(Tolerance(Oracle(exact, [exact] * 2), [exact], 2, torch.float64), [run, run])

    assert [one.ratio for one in found.divergences] == [math.inf] * 2


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


@pytest.mark.parametrize(("times", "passes"), [(1.0, True), (0.99, False)], ids=["as much", "more"])
def test_replicas_may_differ_by_as_much_as_the_order_of_a_sum_explains(
    monkeypatch: pytest.MonkeyPatch, times: float, passes: bool
) -> None:
    known, ranks = tolerance(), right(oracle())
    in_the_last_bit(ranks)

    def apart(quantity: Quantity) -> torch.Tensor:
        one, other = (getattr(run.steps[0], quantity.kind)[quantity.name] for run in ranks)
        difference: torch.Tensor = one.double() - other.double()
        return times * difference.abs()

    monkeypatch.setattr(known, "of_replica", apart)

    assert judge(known, ranks, sums_apart=True).passed is passes


def test_a_replica_that_may_differ_does_not_hide_another() -> None:
    def change(ranks: list[Trajectory]) -> None:
        in_the_last_bit(ranks)
        on(1, 0, "gradient", "bias", lambda g: g.add_(2.0**-20 * g.abs().max()))(ranks)

    assert said(change, sums_apart=True)[-1] == (
        "step 0, gradient 'bias'",
        1,
        "differs from rank 0's replica by more than the order of a sum explains",
    )


# -- properties ---------------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**16)
RANKS = st.sampled_from([2, 3, 4, 8])


@settings(max_examples=5, deadline=None)
@given(seed=SEEDS, ranks=RANKS, turn=st.integers(1, 7))
def test_the_ranks_order_does_not_matter(seed: int, ranks: int, turn: int) -> None:
    exact = oracle(ranks, seed=seed)
    known, runs = tolerance(exact), right(exact)
    turned = runs[turn % ranks :] + runs[: turn % ranks]

    assert judge(known, runs).ratio == judge(known, turned).ratio


@settings(max_examples=5, deadline=None)
@given(seed=SEEDS, power=st.integers(-20, 20))
def test_ratios_do_not_depend_on_the_unit_of_gradients(seed: int, power: int) -> None:
    def largest(size: float) -> float:
        exact = oracle(seed=seed, size=size)
        wrong = right(exact)
        everywhere(1, "gradient", "weight", lambda g: g[1, 1].add_(g.abs().max() / 100))(wrong)
        found = judge(tolerance(exact), wrong)
        return found.growth[1]["gradient"]

    assert largest(2.0**power) == pytest.approx(largest(1.0), rel=1e-6)


@settings(max_examples=10, deadline=None)
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


# -- what is said of each, to the letter ----------------------------------------------------------------


def said(
    change: Change | None = None, exact: Oracle | None = None, **how: object
) -> list[tuple[str, int, str]]:
    """Every divergence: which quantity, on which rank, and what."""
    found = verdict(change, exact, **how)
    return [(str(d.quantity), d.rank, d.what) for d in found.divergences]


BIT, STEP = "not bit-identical to rank 0's replica", "step 1, {} {!r}".format
MANY = 2**53 + 1
SAYS = {
    "a missing gradient": (
        take_away(1, 1, "gradient", "bias"), STEP("gradient", "bias"), [1], "missing"
    ),
    "a gradient of None": (
        instead(1, "gradient", "bias", lambda _: None), STEP("gradient", "bias"), [0, 1],
        "is None, expected a tensor",
    ),
    "a shape": (
        instead(1, "gradient", "bias", lambda g: g[None]), STEP("gradient", "bias"), [0, 1],
        "shape [1, 4], expected [4]",
    ),
    "a dtype": (
        instead(1, "parameter", "bias", torch.Tensor.double), STEP("parameter", "bias"), [0, 1],
        "dtype torch.float64, expected torch.float32",
    ),
    "a dtype on one rank": (
        on_one(1, 1, "parameter", "bias", torch.Tensor.double), STEP("parameter", "bias"), [1],
        "dtype torch.float64, expected torch.float32",
    ),
    "an additional tensor": (
        bring_in(1, 1, "gradient", torch.ones(2)), STEP("gradient", "other"), [1],
        "not in the oracle",
    ),
    "an additional buffer": (
        bring_in(0, 1, "buffer", torch.ones(2)), STEP("buffer", "other"), [0], "not in the oracle"
    ),
    "an integer over 2**53": (
        everywhere(1, "buffer", "turns", lambda n: n.sub_(1)), STEP("buffer", "turns"), [0, 1],
        f"not equal bit for bit: {MANY - 1}, expected {MANY}",
    ),
    "a gradient that is NaN": (
        everywhere(1, "gradient", "weight", put((2, 1), math.nan)), STEP("gradient", "weight"),
        [0, 1], "not finite",
    ),
    "a number where infinity is": (
        everywhere(1, "buffer", "mask", put((0, 1), -1e38)), STEP("buffer", "mask"), [0, 1],
        "finite, expected infinity",
    ),
    "a replica of another bit": (
        on(1, 1, "parameter", "bias", lambda p: p.mul_(1 + 2.0**-23)), STEP("parameter", "bias"),
        [1], BIT,
    ),
    "a gradient's replica": (
        on(1, 1, "gradient", "bias", lambda p: p.mul_(1 + 2.0**-23)), STEP("gradient", "bias"),
        [1], BIT,
    ),
    "an initial number's sign": (
        everywhere(None, "initial", "mask", put((0, 0), -0.0)), "before training, initial 'mask'",
        [0, 1], "not equal bit for bit: -0.0, expected 0.0",
    ),
    "a momentum that is missing": (
        lambda ranks: ranks[1].optimizer.pop("weight.square"),
        "after training, optimizer 'weight.square'", [1], "missing",
    ),
    "a loss that is missing": (take_away(0, 1, "loss", "loss"), STEP("loss", "loss"), [0], "missing"),
    "a loss on one rank": (
        on(1, 1, "loss", "loss", lambda loss: loss.fill_(math.inf)), STEP("loss", "loss"), [1],
        "not finite",
    ),
    "a step that was not recorded": (
        lambda ranks: ranks[1].steps.pop(), "run: steps", [1],
        "2 steps recorded, 3 expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "quantity", "ranks", "what"), SAYS.values(), ids=list(SAYS))
def test_what_is_said(change: Change, quantity: str, ranks: list[int], what: str) -> None:
    assert said(change) == [(quantity, rank, what) for rank in ranks]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, []),
        (torch.ones(4), [(STEP("gradient", "bias"), rank, "expected None") for rank in (0, 1)]),
    ],
    ids=["none", "a tensor"],
)
def test_a_parameter_without_a_gradient_has_none(
    found: torch.Tensor | None, says: list[tuple[str, int, str]]
) -> None:
    exact = oracle()
    for run in (exact.trajectory, *exact.parts):
        run.steps[1].gradient["bias"] = None

    made = verdict(instead(1, "gradient", "bias", lambda _: found), exact)

    assert [(str(one.quantity), one.rank, one.what) for one in made.divergences] == says
    assert (made.ratio < 1) is (found is None)


def test_a_gradient_of_nothing_is_right() -> None:
    exact = oracle()
    for run in (exact.trajectory, *exact.parts):
        run.steps[1].gradient["bias"] = torch.zeros(0, dtype=torch.float64)

    found = verdict(exact=exact)

    assert found.passed
    assert found.ratio < 1


def test_what_is_said_of_a_number() -> None:
    first, second = verdict(everywhere(1, "gradient", "bias", put((2,), 0.5))).divergences
    allowed = float(tolerance().of(first.quantity).error[2])
    expected = float(oracle().trajectory.steps[1].gradient["bias"][2])
    off = abs(0.5 - expected)

    assert (first.rank, second.rank) == (0, 1)
    assert first.what == f"off by {off:.3g}, allowed {allowed:.3g}"
    assert (first.index, first.expected, first.found) == ((2,), expected, 0.5)
    assert first.ratio == pytest.approx(off / allowed)


def test_a_rank_that_lacks_a_tensor_does_not_hide_another_s() -> None:
    def change(ranks: list[Trajectory]) -> None:
        ranks[0].steps[1].gradient.pop("bias")
        ranks[1].steps[1].gradient["weight"] = ranks[1].steps[1].gradient["weight"] * (1 + 2.0**-23)

    assert said(change) == [
        (STEP("gradient", "bias"), 0, "missing"),
        (STEP("gradient", "weight"), 1, BIT),
    ]


def test_a_gradient_of_none_does_not_hide_another_s_replica() -> None:
    exact = oracle()
    for run in (exact.trajectory, *exact.parts):
        run.steps[1].gradient["weight"] = None

    assert said(on(1, 1, "gradient", "bias", lambda g: g.mul_(1 + 2.0**-23)), exact) == [
        (STEP("gradient", "bias"), 1, BIT)
    ]


@pytest.mark.parametrize(
    "spoil",
    [
        torch.Tensor.double,
        lambda g: g.double() * (1 + 2.0**-40),
        lambda g: g[None],
        lambda g: g[:3],
        lambda g: g * math.nan,
    ],
    ids=["another dtype", "another dtype and number", "one more dim", "fewer rows", "NaN"],
)
def test_a_replica_that_cannot_be_compared_does_not_hide_the_next(
    spoil: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    def change(ranks: list[Trajectory]) -> None:
        gradient = ranks[1].steps[1].gradient
        gradient["weight"] = spoil(gradient["weight"])
        gradient["bias"] = gradient["bias"] * (1 + 2.0**-23)

    assert said(change)[-1] == (STEP("gradient", "bias"), 1, BIT)
    assert len(said(change)) == 2


def test_losses_and_buffers_need_not_be_equal_on_all_ranks() -> None:
    assert said(on(1, 1, "buffer", "mean", lambda b: b.mul_(1 + 2.0**-23))) == []


def test_how_large_and_where() -> None:
    found = verdict(everywhere(1, "gradient", "weight", lambda g: g[2, 1].add_(0.25)))
    others = [
        (step, kind, row[kind])
        for step, row in enumerate(found.growth)
        for kind in ("loss", "gradient", "parameter", "buffer", "optimizer")
    ]

    assert [len(row) for row in found.growth] == [5, 5, 5]
    assert [(step, kind) for step, kind, ratio in others if ratio > 1] == [(1, "gradient")]
    assert found.growth[1]["gradient"] == found.ratio == found.divergences[0].ratio
    # What is stored in float32 is a rounding off; the losses here are not.
    assert all(ratio > 0 for _, kind, ratio in others if kind not in ("loss", "optimizer"))
    scale = tolerance().of(Quantity(1, "gradient", "weight")).scale
    assert found.error == pytest.approx(0.25 / scale, rel=1e-5)


def test_the_size_of_a_right_run_s_error() -> None:
    """A number that is off by an eighth of what is allowed has that ratio."""
    exact = oracle()
    ranks = [copy.deepcopy(exact.trajectory) for _ in range(2)]
    known = Tolerance(exact, [exact.trajectory], 2, torch.float32)
    bias = Quantity(1, "gradient", "bias")
    for run, part in zip(ranks, exact.parts, strict=True):
        run.rows = part.rows
        run.steps[1].gradient["bias"] = run.steps[1].gradient["bias"] + known.of(bias).error / 8
        for step, alone in zip(run.steps, part.steps, strict=True):
            step.loss = dict(alone.loss)

    found = judge(known, ranks)

    assert found.passed
    assert found.ratio == pytest.approx(0.125, rel=1e-6)
    # Where nothing is off, nothing has grown.
    assert [row["gradient"] for row in found.growth] == [0.0, found.ratio, 0.0]
    assert found.error == pytest.approx(
        float(known.of(bias).error.max()) / 8 / known.of(bias).scale, rel=1e-6
    )


@pytest.mark.parametrize("step", [None, 1])
def test_norms_are_among_what_grows_where_a_step_has_one(step: int | None) -> None:
    exact = oracle()
    if step is not None:
        exact.trajectory.steps[step].norm = {"total": torch.tensor(2.0).double()}

    found = judge(tolerance(exact), right(exact))

    assert found.passed
    assert {"norm" in row for row in found.growth} == {step is not None}


@pytest.mark.parametrize(("times", "passes"), [(1.0, True), (1.001, False)])
def test_what_is_allowed_is_right_and_more_is_wrong(times: float, passes: bool) -> None:
    exact, run = (
        Trajectory(steps=[Step(gradient={"x": torch.tensor([0.0, off], dtype=torch.float64)})])
        for off in (0.0, times * 10 * 2.0**-149)
    )

    # Of a zero, subnormal numbers are allowed: ten of them to two ranks.
    found = judge(Tolerance(Oracle(exact, [exact] * 2), [exact], 2, torch.float32), [run, run])

    assert found.ratio == times
    assert found.passed is passes


# -- which rows a rank has, and the losses over them ---------------------------------------------------


def rows(*of: list[int] | None) -> Change:
    """Each rank's rows; its loss is the oracle's over them, of two parts of four rows."""

    def change(ranks: list[Trajectory]) -> None:
        exact = oracle()
        for run, mine in zip(ranks, of, strict=True):
            run.rows = mine
            for step, whole in zip(run.steps, range(3), strict=True):
                parts = [
                    exact.parts[row // 4].steps[whole].loss["loss"] for row in mine or range(8)
                ]
                step.loss = {"loss": torch.stack(parts).mean().float()}

    return change


ROWS = {
    "as the oracle's parts": (([0, 1, 2, 3], [4, 5, 6, 7]), []),
    "the other way round": (([4, 5, 6, 7], [0, 1, 2, 3]), []),
    "in another order": (([3, 1, 2, 0], [7, 4, 5, 6]), []),
    "all on both": (([*range(8)], [*range(8)]), []),
    "parts of parts": (([0, 1, 4, 5], [2, 3, 6, 7]), []),
    "not known": ((None, None), []),
    "not known on one": ((None, [4, 5, 6, 7]), []),
    "one part on no rank": (([0, 1, 2, 3], [0, 1, 2, 3]), ["rows [4, 5, 6, 7] on no rank"]),
    "two rows on no rank": (([0, 1, 2, 3], [4, 5]), ["rows [6, 7] on no rank"]),
    "a row twice": (([0, 1, 2, 3], [4, 5, 6, 7, 7]), ["some rows on more ranks than others"]),
    "a row on both": (([0, 1, 2, 3], [3, 4, 5, 6, 7]), ["some rows on more ranks than others"]),
    "no row": (([0, 1, 2, 3], []), []),
    "fewer rows than parts": (([0], [0]), ["rows [1, 2, 3, 4, 5, 6, 7] on no rank"]),
}


@pytest.mark.parametrize(("of", "says"), ROWS.values(), ids=list(ROWS))
def test_rows(of: tuple[list[int] | None, ...], says: list[str]) -> None:
    found = [(q, rank, what) for q, rank, what in said(rows(*of)) if "run" in q]

    assert found == [(f"step {step}, run 'rows'", 0, what) for step in range(3) for what in says]


@pytest.mark.parametrize("name", ["as the oracle's parts", "the other way round", "all on both"])
def test_a_rank_s_loss_is_that_of_its_rows(name: str) -> None:
    of, _ = ROWS[name]

    def change(ranks: list[Trajectory]) -> None:
        rows(*of)(ranks)
        on(0, 1, "loss", "loss", lambda loss: loss.add_(0.25))(ranks)
        on(1, 1, "loss", "loss", lambda loss: loss.sub_(0.25))(ranks)

    assert said(rows(*of)) == []
    assert [(q, rank) for q, rank, _ in said(change)] == [(STEP("loss", "loss"), r) for r in (0, 1)]


def test_the_losses_of_ranks_without_whole_parts_are_compared_by_their_mean() -> None:
    def change(ranks: list[Trajectory]) -> None:
        rows([0, 1, 4, 5], [2, 3, 6, 7])(ranks)
        on(0, 1, "loss", "loss", lambda loss: loss.add_(0.25))(ranks)

    (first, second) = verdict(change).divergences

    assert (first.rank, second.rank) == (0, 1)
    whole = float(oracle().trajectory.steps[1].loss["loss"])
    for one in (first, second):
        assert one.expected == whole
        assert one.found == pytest.approx(whole + 0.125, rel=1e-6)


def test_a_rank_without_a_loss_lacks_it_where_the_mean_is_compared() -> None:
    def change(ranks: list[Trajectory]) -> None:
        rows(None, None)(ranks)
        for step, whole in zip(ranks[0].steps, oracle().trajectory.steps, strict=True):
            step.loss = {"loss": whole.loss["loss"].float()}
        ranks[1].steps[1].loss = {}

    assert said(change) == [(STEP("loss", "loss"), 1, "missing")]


def test_a_loss_that_no_rank_has_is_missing_on_all() -> None:
    def change(ranks: list[Trajectory]) -> None:
        rows(None, None)(ranks)
        for run in ranks:
            run.steps[1].loss = {}

    assert said(change) == [(STEP("loss", "loss"), rank, "missing") for rank in (0, 1)]


def test_rows_need_not_be_on_any_rank_where_some_run_out() -> None:
    who = [Participation(0, range(2), 3, ("parameter", "buffer")), Participation(1, range(3), 3)]
    ranks = right(oracle())
    ranks[1].steps[2].loss = {"loss": oracle().trajectory.steps[2].loss["loss"].float()}
    ranks[0].steps[2].loss, ranks[0].steps[2].gradient, ranks[0].optimizer = {}, {}, {}

    found = judge(tolerance(), ranks, participation=who)

    assert not [one for one in found.divergences if one.quantity.name == "rows"]


@pytest.mark.parametrize(
    ("in_the_end", "says"),
    [
        pytest.param((), {0: "rows [4, 5, 6, 7] on no rank", 1: "rows [4, 5, 6, 7] on no rank"}),
        pytest.param(("loss",), {2: "some rows on more ranks than others"}),
    ],
    ids=["those that make it", "and those that have its loss"],
)
def test_whose_rows_count_at_a_step(in_the_end: tuple[str, ...], says: dict[int, str]) -> None:
    """Two ranks, with the same rows, make two steps; two others make the last one."""
    who = [Participation(rank, range(2), 3, in_the_end) for rank in (0, 1)]
    who += [Participation(rank, range(2, 3), 3) for rank in (0, 1)]
    ranks = [*right(oracle()), *right(oracle())]
    ranks[1].rows = ranks[0].rows

    found = judge(tolerance(), ranks, participation=who).divergences

    assert {d.quantity.step: d.what for d in found if d.quantity.name == "rows"} == says


def test_a_rank_without_a_part_may_have_nothing_at_all() -> None:
    out = Participation(3, range(2), 3, ("parameter", "buffer"))
    ranks = right(oracle())
    for run in ranks:
        run.rows = None
    whole = oracle().trajectory.steps[2].loss["loss"]
    ranks[0].steps[2].loss, ranks[1].steps[2].loss = {"loss": whole.float()}, {}

    found = judge(tolerance(), ranks, participation=[Participation(2, range(3), 3), out])

    assert [(str(d.quantity), d.rank, d.what) for d in found.divergences] == [
        ("step 2, gradient 'bias'", 3, "recorded although this rank takes no part in the step"),
        (
            "after training, optimizer 'weight.square'",
            3,
            "recorded although this rank takes no part in the step",
        ),
    ]


# -- sums apart --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        pytest.param("gradient", "bias", [], id="a gradient"),
        pytest.param("parameter", "bias", [], id="a parameter"),
        pytest.param(
            "gradient", "other", ["not in the oracle"] * 2 + [BIT], id="an additional one"
        ),
    ],
)
def test_the_last_bit_of_a_replica(kind: str, name: str, says: list[str]) -> None:
    def change(ranks: list[Trajectory]) -> None:
        for rank, run in enumerate(ranks):
            group = getattr(run.steps[1], kind)
            group[name] = group.get(name, torch.ones(2)) * (1 + rank * 2.0**-23)

    assert [what for _, _, what in said(change, sums_apart=True)] == says


def test_replicas_of_the_initial_state_are_equal_to_the_bit_on_every_device() -> None:
    change = on(1, None, "initial", "bias", lambda p: p.mul_(1 + 2.0**-23))

    assert said(change, sums_apart=True)[-1] == (
        "before training, initial 'bias'",
        1,
        "differs from rank 0's replica by more than the order of a sum explains",
    )
