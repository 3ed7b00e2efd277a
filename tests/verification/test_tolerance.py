"""What is allowed is what docs/verdict.md derives, computed here by hand from the same numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from making import FLOAT32, near, oracle, shaken, tolerance

from distparity.training.reference import Oracle
from distparity.training.trajectory import Step, Trajectory
from distparity.verification import tolerance as tolerances
from distparity.verification.constants import FACTOR
from distparity.verification.findings import Quantity
from distparity.verification.tolerance import (
    ORACLE,
    OneProcess,
    Tolerance,
    gradient_terms,
    matrix_scale,
    most_of_one_process,
)

U, U64, C = 2.0**-24, 2.0**-53, 8.0
TINY = 2.0**-149
#: Two parts' gradients, which cancel in one element, and are small in one column.
PARTS = ([[1.0, 2.0**-20], [4.0, 2.0**-19]], [[-0.75, 2.0**-20], [2.0, -(2.0**-18)]])
#: How far each of two reference runs is from the mean, in units of 2**-24.
OFF = ([[4.0, 0.0], [0.0, 2.0**-19]], [[0.0, 2.0**-20], [-2.0, 0.0]])


def doubles(table: object) -> torch.Tensor:
    return torch.tensor(table, dtype=torch.float64)


def trajectory(kind: str, *values: torch.Tensor, dtype: torch.dtype = torch.float64) -> Trajectory:
    """A run that recorded one tensor of a kind, ``x``, a step."""
    run = Trajectory()
    for value in values:
        run.steps.append(Step(**{kind: {"x": value.to(dtype)}}))
    return run


def allowed(
    kind: str, exact: Oracle, runs: list[Trajectory], step: int = 0, **how: object
) -> list[Any]:
    made = Tolerance(exact, runs, 2, torch.float32, **how)
    return made.of(Quantity(step, kind, "x")).error.tolist()


def test_the_constants_are_the_documented_ones() -> None:
    assert (FACTOR, ORACLE) == (C, U64)


def test_what_a_gradient_is_allowed() -> None:
    parts = [doubles(part) for part in PARTS]
    mean = (parts[0] + parts[1]) / 2
    exact = Oracle(trajectory("gradient", mean), [trajectory("gradient", part) for part in parts])
    # In float64, so that what a run is off is not rounded.
    runs = [trajectory("gradient", mean + U * doubles(off)) for off in OFF]

    found = allowed("gradient", exact, runs)

    terms = [[(abs(PARTS[0][i][j]) + abs(PARTS[1][i][j])) / 2 for j in (0, 1)] for i in (0, 1)]
    sigma = [[min(max(terms[i]), max(terms[0][j], terms[1][j])) for j in (0, 1)] for i in (0, 1)]
    errors = [[max(abs(off[i][j]) for off in OFF) * U for j in (0, 1)] for i in (0, 1)]
    size = [[abs(PARTS[0][i][j] + PARTS[1][i][j]) / 2 for j in (0, 1)] for i in (0, 1)]
    stored = [[(U + U64) * size[i][j] for j in (0, 1)] for i in (0, 1)]
    most = max(map(max, errors))
    relative = max(errors[i][j] / sigma[i][j] for i in (0, 1) for j in (0, 1))
    cap = max(*map(max, errors), *map(max, stored))
    for i in (0, 1):
        for j in (0, 1):
            explained = min(most + stored[i][j], relative * sigma[i][j] + stored[i][j], cap)
            by_hand = C * (explained + TINY) + 2 * ((U + U64) * terms[i][j] + TINY)
            assert found[i][j] == near(by_hand, rel=1e-12)


def moved(
    dtype: torch.dtype, *steps: tuple[list[float], list[float]], start: list[float]
) -> Trajectory:
    """A run with a gradient and a parameter, ``x``, in each step, from ``start``."""
    run = Trajectory({"x": doubles(start).to(dtype)})
    for gradient, parameter in steps:
        run.steps.append(
            Step(
                gradient={"x": doubles(gradient).to(dtype)},
                parameter={"x": doubles(parameter).to(dtype)},
            )
        )
    return run


def test_what_a_sum_over_ranks_carries_to_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    # The gradient cancels in part; the second step moves the parameter twice as far for it.
    parts = [moved(torch.float64, ([3.0, 1.0], []), ([4.0, 2.0], []), start=[]) for _ in range(2)]
    for step in parts[1].steps:
        step.gradient["x"] = step.gradient["x"] * doubles([-1 / 3, 1.0])
    first, second = [1.0, 1.0], [4 / 3, 2.0]
    steps = (first, [0.25, 0.5]), (second, [0.0, 0.0])
    exact = Oracle(moved(torch.float64, *steps, start=[0.0, 0.0]), parts)
    # No reference run is off.
    run = moved(torch.float64, *steps, start=[0.0, 0.0])

    found = [allowed("parameter", exact, [run], step) for step in (0, 1)]

    # Largest move, largest gradient, magnitude of terms.
    one = [0.5 / 1.0 * 2 * (U + U64) * terms for terms in (2.0, 1.0)]
    more = [0.5 / 2.0 * 2 * (U + U64) * terms for terms in ((4 + 4 / 3) / 2, 2.0)]
    stored = [C * ((U + U64) * size + TINY) for size in (0.25, 0.5)]
    assert found[0] == near([stored[0] + one[0], stored[1] + one[1]])
    last = [C * TINY + sum(carried) for carried in zip(one, more, strict=True)]
    assert found[1] == near(last)
    # Of a large parameter, the largest is kept.
    monkeypatch.setattr(tolerances, "SMALL", 2)
    assert allowed("parameter", exact, [run], 1) == found[1]
    monkeypatch.setattr(tolerances, "SMALL", 1)
    largest = C * TINY + max(one) + max(more)
    assert allowed("parameter", exact, [run], 1) == near([largest] * 2)


@pytest.mark.parametrize(
    ("gradient", "start", "carried"),
    [
        pytest.param([0.0, 0.0], [0.0, 0.0], 0.0, id="no gradient"),
        pytest.param([1.0, 1.0], [0.25, 0.5], 0.0, id="no move"),
        # In proportion to the move, however small the gradient is.
        pytest.param([1e-50, 1e-50], [0.0, 0.0], 0.5 * 2 * (U + U64), id="next to no gradient"),
    ],
)
def test_what_a_gradient_that_is_nothing_carries(
    gradient: list[float], start: list[float], carried: float
) -> None:
    step = (gradient, [0.25, 0.5])
    exact = Oracle(moved(torch.float64, step, start=start), [])

    found = allowed("parameter", exact, [moved(torch.float64, step, start=start)])

    plain = [C * ((U + U64) * size + TINY) for size in (0.25, 0.5)]
    assert found == near([one + carried for one in plain])


def test_a_small_column_is_allowed_a_small_error() -> None:
    exact = oracle()
    for part in [*exact.parts, exact.trajectory]:
        for step in part.steps:
            step.gradient["weight"] = step.gradient["weight"] * doubles([1.0, 1.0, 3e-7])
    # Their errors are in proportion.
    known = Tolerance(exact, [_in_proportion(exact, seed) for seed in range(6)], 2, torch.float32)

    error = known.of(Quantity(1, "gradient", "weight")).error

    assert error[:, 2].max() < 1e-5 * error[:, 0].max()


def _in_proportion(exact: Oracle, seed: int) -> Trajectory:
    run = shaken(exact.trajectory, seed, 1.0, torch.float32)
    for step, right in zip(run.steps, exact.trajectory.steps, strict=True):
        draw = torch.Generator().manual_seed(seed)
        off = torch.rand(4, 3, generator=draw, dtype=torch.float64) * 2 - 1
        value = right.gradient["weight"]
        step.gradient["weight"] = (value * (1 + 4 * FLOAT32 * off)).float()
    return run


def test_an_embedding_s_rare_row_is_allowed_a_small_error() -> None:
    assert matrix_scale(doubles([[1.0, 2.0], [3e-7, 1e-7]])).tolist() == [[1.0, 2.0], [3e-7, 3e-7]]


@pytest.mark.parametrize(
    ("terms", "scale"),
    [
        pytest.param([[1.0, 8.0], [2.0, 4.0]], [[2.0, 8.0], [2.0, 4.0]], id="a matrix"),
        pytest.param([[[1.0, 8.0]], [[2.0, 4.0]]], [[[2.0, 8.0]], [[2.0, 4.0]]], id="three dims"),
        pytest.param([[1e-9, 0.0], [2.0, 0.0]], [[1e-9, 0.0], [2.0, 0.0]], id="a dead column"),
        pytest.param([[], []], [[], []], id="nothing"),
    ],
)
def test_scale(terms: object, scale: object) -> None:
    assert matrix_scale(doubles(terms)).tolist() == scale


@pytest.mark.parametrize(
    ("made", "factor"),
    [
        pytest.param(lambda mean: mean, 1.0, id="as it is"),
        pytest.param(lambda mean: mean / 10, 0.1, id="the norm clipped"),
        pytest.param(lambda mean: mean.clamp(-2, 2), 1.0, id="values clipped"),
        pytest.param(lambda mean: 4 * mean, 4.0, id="a divisor of the wrapper's"),
    ],
)
def test_terms_are_scaled_as_the_gradient_was(made: object, factor: float) -> None:
    parts = [doubles(part) for part in PARTS]
    exact = Oracle(Trajectory(), [trajectory("gradient", part) for part in parts])

    terms = gradient_terms(exact, 0, "x", made(torch.stack(parts).mean(0)))

    right = factor * torch.stack(parts).abs().mean(0)
    assert terms.flatten().tolist() == near(right.flatten().tolist(), rel=1e-12)


def terms_of(parts: Any, gradient: object) -> Any:
    exact = Oracle(Trajectory(), [trajectory("gradient", doubles(part)) for part in parts])
    return gradient_terms(exact, 0, "x", doubles(gradient)).tolist()


@pytest.mark.parametrize("size", [1.0, 2.0**-40], ids=["large", "small"])
def test_where_parts_do_not_explain_a_gradient_all_elements_have_one_magnitude(size: float) -> None:
    parts = [(size * doubles(part)).tolist() for part in PARTS]

    found = terms_of(parts, [[size, 3.0 * size], [3.0 * size, 0.0]])

    # The first element's parts have a mean of 0.125, and 3 times 8 is the largest magnitude.
    assert found == [[24.0 * size] * 2] * 2


TERMS = {
    "no parts": ([], [-1.0, 2.0], [1.0, 2.0]),
    "nothing": ([[], []], [], []),
    "all cancels": ([[1.0, -2.0], [-1.0, 2.0]], [0.0, 0.0], [1.0, 2.0]),
    # What is left of a thousandth of the largest counts for clipping; of less, rounding.
    "a small element": ([[1.0, 1.25 / 2**10]], [1.0, 2.5 / 2**10], [2.0, 2.5 / 2**10]),
    "one that nearly cancels": ([[1.0, 1 / 2**10]], [1.0, 2 / 2**10], [1.0, 1.0]),
}


@pytest.mark.parametrize(("parts", "gradient", "terms"), TERMS.values(), ids=list(TERMS))
def test_terms(parts: object, gradient: object, terms: object) -> None:
    assert terms_of(parts, gradient) == terms


def runs_of(kind: str, exact: list[float], *off: list[float]) -> tuple[Oracle, list[Trajectory]]:
    """One number a step, and reference runs that are off by so many units of 2**-24."""
    right = trajectory(kind, *(doubles([x]) for x in exact))
    runs = [
        trajectory(kind, *(doubles([x + U * d]) for x, d in zip(exact, run, strict=True)))
        for run in off
    ]
    return Oracle(right, [Trajectory(), Trajectory()]), runs


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_an_error_once_made_stays_in_parameters_and_buffers(kind: str) -> None:
    exact, runs = runs_of(kind, [1.0, 1.0], [9.0, 1.0], [3.0, 0.0])

    (found,) = allowed(kind, exact, runs, step=1)

    assert found == near(C * 9 * U, rel=1e-6)


@pytest.mark.parametrize("step", [0, 1])
def test_a_gradient_has_its_own_step_s_error_and_scale(step: int) -> None:
    right = trajectory("gradient", doubles([1.0]), doubles([1e-4]))
    exact = Oracle(right, [right, right])
    runs = [trajectory("gradient", doubles([1.0 + 9 * U]), doubles([1e-4 * (1 + 3 * U)]))]

    (found,) = allowed("gradient", exact, runs, step=step)

    size, off = [(1.0, 9 * U), (1e-4, 3e-4 * U)][step]
    assert found == near(C * off + 2 * U * size, rel=1e-6)


def test_the_largest_of_all_reference_runs_counts() -> None:
    exact, runs = runs_of("parameter", [1.0], [0.0], [2.0], [7.0], [1.0])

    assert allowed("parameter", exact, runs) == [near(C * 7 * U, rel=1e-6)]


def test_where_reference_runs_are_exact_rounding_once_is_allowed_for() -> None:
    exact, runs = runs_of("parameter", [0.5], [0.0])

    assert allowed("parameter", exact, runs) == [near(C * 0.5 * U, rel=1e-6)]


@pytest.mark.parametrize(
    ("kind", "right_by"),
    [
        ("gradient", 3 * 2.0**-8 + 2 * (U + U64)),
        ("norm", 3 * 2.0**-8 + 2 * (U + U64)),
        ("parameter", C * (U + U64)),
    ],
)
def test_gradients_that_travel_in_a_lower_precision(kind: str, right_by: float) -> None:
    right = trajectory(kind, doubles([1.0]))
    exact = Oracle(right, [right, right])

    (found,) = allowed(kind, exact, [right], reduce_dtype=torch.bfloat16)

    assert found == near(right_by, rel=1e-12)


def test_gradients_that_go_through_products_of_matrices() -> None:
    right = trajectory("gradient", doubles([[2.0, 0.5]]))
    exact = Oracle(right, [right, right])

    plain = allowed("gradient", exact, [right])[0]
    more = allowed("gradient", exact, [right], multiplies=True)[0]
    right.products = 2.0**-12
    coarse = allowed("gradient", exact, [right], multiplies=True)[0]

    assert [b - a for a, b in zip(plain, more, strict=True)] == near([C * 3 * U * 2] * 2)
    assert [b - a for a, b in zip(plain, coarse, strict=True)] == near([C * 3 * 2.0**-12 * 2] * 2)


@pytest.mark.parametrize(
    ("state", "power"),
    [([[-2.0, 0.5]], 1), ([[2.0, 0.5]], 2), ([[1.5, 0.0]], 2)],
    ids=["a mean", "squares", "squares, one of nothing"],
)
def test_what_is_made_of_such_gradients(state: list[list[float]], power: int) -> None:
    right = trajectory("optimizer", doubles(state))
    exact = Oracle(right, [])

    plain = allowed("optimizer", exact, [right])[0]
    more = allowed("optimizer", exact, [right], multiplies=True)[0]

    by_hand = power * C * 3 * U * max(map(abs, state[0]))
    assert [b - a for a, b in zip(plain, more, strict=True)] == near([by_hand] * 2)


def test_a_vector_goes_through_no_product_of_matrices() -> None:
    right = trajectory("gradient", doubles([2.0, 0.5]))
    exact = Oracle(right, [right, right])

    plain = allowed("gradient", exact, [right])

    assert allowed("gradient", exact, [right], multiplies=True) == plain


@pytest.mark.parametrize(("kind", "times"), [("parameter", C), ("gradient", C + 2)])
def test_a_zero_is_allowed_subnormal_numbers(kind: str, times: float) -> None:
    right = trajectory(kind, doubles([0.0, 0.0]))

    assert allowed(kind, Oracle(right, [right, right]), [right]) == [times * TINY] * 2


def test_an_error_where_a_column_is_dead_is_carried_everywhere() -> None:
    right = trajectory("gradient", doubles([[1.0, 0.0], [2.0, 0.0]]))
    run = trajectory("gradient", doubles([[1.0, 4 * U], [2.0, 0.0]]))

    found = allowed("gradient", Oracle(right, [right, right]), [run])

    for row, size in zip(found, (1.0, 2.0), strict=True):
        assert row[0] == near(C * 4 * U + 2 * (U + U64) * size, rel=1e-12)
        assert row[1] == near(C * 4 * U, rel=1e-12)


def test_what_is_stored_in_a_coarser_dtype_is_rounded_to_it() -> None:
    right = trajectory("parameter", doubles([0.5]))
    runs = [right, trajectory("parameter", doubles([0.5]), dtype=torch.bfloat16), right]

    (found,) = allowed("parameter", Oracle(right, []), runs)

    assert found == near(C * (2.0**-8 + U64) * 0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("dtype", "roundoff"),
    [(None, U), (torch.bfloat16, 2.0**-8), (torch.float64, U)],
    ids=["the case's dtype", "bfloat16", "float64"],
)
def test_a_loss_is_measured_by_its_parts(dtype: torch.dtype | None, roundoff: float) -> None:
    parts = [losses(-1.0), losses(3.0)]
    exact = Oracle(losses(1.0), parts)
    made = Tolerance(exact, [losses(1.0)], 2, torch.float32, compute_dtype=dtype)

    found = made.of(Quantity(0, "loss", "loss"))

    assert found.scale == 2.0
    assert float(found.error) == near(C * (roundoff + U64))


@pytest.mark.parametrize(("kind", "times"), [("parameter", C), ("buffer", C), ("gradient", C + 2)])
def test_in_float64_the_oracle_rounds_as_much_as_a_run(kind: str, times: float) -> None:
    right = trajectory(kind, doubles([1.0]))

    made = Tolerance(Oracle(right, [right, right]), [right], 2, torch.float64)

    assert made.dtype is torch.float64
    assert made.of(Quantity(0, kind, "x")).error.tolist() == near([times * 2 * U64])


def test_in_float64_the_oracle_s_loss_rounds_as_much_as_a_run_s() -> None:
    exact = Oracle(losses(1.0), [losses(1.0)] * 2)

    found = Tolerance(exact, [losses(1.0)], 2, torch.float64).of_loss(0, (0,))

    assert float(found.error) == near(C * 2 * U64)


@pytest.mark.parametrize("other", [("parameter", "y"), ("buffer", "x")], ids=["name", "kind"])
def test_an_error_stays_in_its_own_tensor(other: tuple[str, str]) -> None:
    kind, name = other
    exact, run = (
        Trajectory(steps=[Step(parameter={"x": doubles([1.0 + off])})]) for off in (0.0, 9 * U)
    )
    for one in (exact, run):
        getattr(one.steps[0], kind)[name] = doubles([1.0])

    made = Tolerance(Oracle(exact, []), [run], 2, torch.float32)

    assert made.of(Quantity(0, kind, name)).error.tolist() == near([C * (U + U64)])
    assert made.of(Quantity(0, "parameter", "x")).error.tolist() == near([C * 9 * U])


@pytest.mark.parametrize(
    ("room", "kept"),
    [(0, 0), (16 * 6 - 1, 0), (16 * 6, 1), (2 * 16 * 6 - 1, 1), (2 * 16 * 6, 2)],
    ids=["none", "less than one's", "one's", "less than two's", "two's"],
)
def test_so_many_allowed_errors_are_kept(
    monkeypatch: pytest.MonkeyPatch, room: int, kept: int
) -> None:
    """Of two matrices of 6 elements, with 16 bytes for each. Vectors are small, and always kept."""
    monkeypatch.setattr(tolerances, "KEPT", room)
    matrices = trajectory("gradient", *[torch.ones(2, 3)] * 2)
    vectors = trajectory("gradient", *[torch.ones(3)] * 2)

    for run, number in ((matrices, kept), (vectors, 2)):
        assert len(Tolerance(Oracle(run, [run]), [run], 2, torch.float32)._kept) == number


@pytest.mark.parametrize("step", [0, 1])
def test_how_far_replicas_may_be_apart(step: int) -> None:
    parts = [[[1.0, 0.0], [4.0, -0.5]], [[-0.75, 0.0], [2.0, 0.5]]]
    tables = [doubles(part) for part in parts]
    both = [trajectory("gradient", table, table) for table in tables]
    mean = (tables[0] + tables[1]) / 2
    right = trajectory("gradient", mean, mean)
    made = Tolerance(Oracle(right, both), [right], 2, torch.float32)
    quantity = Quantity(step, "gradient", "x")

    terms = [[0.875, 0.0], [3.0, 0.5]]
    each = [[(U + U64) * term for term in row] for row in terms]
    order = [[4 * (U * term + TINY) for term in row] for row in terms]
    carried = made.of(quantity).error if step else torch.zeros(2, 2)

    assert made.by_rank(quantity).tolist() == each
    assert made.of_replica(quantity).tolist() == (doubles(order) + carried).tolist()


def test_replicas_of_all_else_have_the_tolerance_s_bound() -> None:
    made = tolerance()
    parameter = Quantity(1, "parameter", "bias")

    assert made.of_replica(parameter) is made.of(parameter).error
    assert made.of_replica(Quantity(None, "initial", "bias")) is None
    with pytest.raises(KeyError):
        made.by_rank(parameter)


@pytest.mark.parametrize("value", [None, doubles([]), torch.tensor([1])], ids=str)
def test_what_has_no_arithmetic_has_no_tolerance(value: torch.Tensor | None) -> None:
    run = Trajectory(steps=[Step(gradient={"x": value, "y": doubles([1.0])})])
    made = Tolerance(Oracle(run, [run, run]), [run], 2, torch.float32)

    for quantity in (Quantity(0, "gradient", "x"), Quantity(0, "gradient", "y")):
        assert (made.of(quantity).error is None) is (quantity.name == "x")
        assert (made.of_replica(quantity) is None) is (quantity.name == "x")
    assert made.of(Quantity(0, "gradient", "x")).scale == 0.0


@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param(torch.tensor([3]), "integers", id="integers"),
        pytest.param(torch.tensor([True]), "booleans", id="booleans"),
    ],
)
def test_to_the_bit(value: torch.Tensor, why: str) -> None:
    exact = Oracle(trajectory("buffer", value, dtype=value.dtype), [])
    runs = [trajectory("buffer", value, dtype=value.dtype)]

    assert Tolerance(exact, runs, 2, torch.float32).of(Quantity(0, "buffer", "x")).error is None


@pytest.mark.parametrize(
    ("stored", "exact"),
    [
        pytest.param([3.0, 3.0], True, id="a counter"),
        pytest.param([3.0, 3.0 + 2.0**-20], False, id="not in every run"),
        pytest.param([3.5, 3.5], False, id="no whole number"),
    ],
)
def test_a_counter_is_what_every_reference_run_has_exactly(
    stored: list[float], exact: bool
) -> None:
    known = tolerance()
    known.oracle.trajectory.optimizer = {"x": doubles(stored[0])}
    for run, value in zip(known.reference_runs, [*stored, *stored, *stored], strict=True):
        run.optimizer = {"x": torch.tensor(value)}

    made = Tolerance(known.oracle, known.reference_runs, 2, torch.float32)

    assert (made.of(Quantity(None, "optimizer", "x")).error is None) is exact


def losses(*values: float) -> Trajectory:
    return Trajectory(steps=[Step({"loss": doubles(value)}) for value in values])


@pytest.mark.parametrize(
    ("parts", "share", "expected"), [((0, 1), 1.0, 0.75), ((0,), 0.5, -0.5), ((1,), 0.5, 2.0)]
)
@pytest.mark.parametrize("coarse", [None, torch.bfloat16, torch.float64], ids=str)
def test_what_a_rank_s_loss_is_allowed(
    parts: tuple[int, ...], share: float, expected: float, coarse: torch.dtype | None
) -> None:
    exact = Oracle(losses(0.75), [losses(-0.5), losses(2.0)])
    runs = [losses(0.75 + 5 * U)]

    made = Tolerance(exact, runs, 2, torch.float32, compute_dtype=coarse)
    found = made.of_loss(0, parts)

    stored = ((2.0**-8 if coarse is torch.bfloat16 else U) + U64) * abs(expected)
    carried = 5 * U / math.sqrt(share) * max(1.0, abs(expected) / 1.25)
    assert found.error.dtype == torch.float64
    assert float(found.error) == near(C * (carried + stored + TINY))
    assert found.scale == max(1.25, abs(expected))


def test_what_a_rank_s_loss_is_allowed_where_all_are_zero() -> None:
    exact = Oracle(losses(0.0), [losses(0.0), losses(0.0)])

    found = Tolerance(exact, [losses(TINY)], 2, torch.float32).of_loss(0, (0,))

    assert (float(found.error), found.scale) == (C * TINY, 0.0)


def stepped(loss: float, gradient: object, parameter: object) -> Trajectory:
    """Two steps with the same loss and gradient ``x``; the parameter is that after each."""
    names = {"x": doubles(gradient)}, {"x": doubles(parameter)}
    return Trajectory(steps=[Step({"loss": doubles(loss)}, *names) for _ in range(2)])


@pytest.mark.parametrize(("parts", "size"), [((0,), 5.0), ((1,), 5.0), ((0, 1), 0.0)])
def test_what_the_parameters_errors_carry_to_a_rank_s_loss(
    parts: tuple[int, ...], size: float
) -> None:
    # The ranks' gradients cancel in the mean, which is nearly right whatever the parameters are.
    alone = [stepped(1.0, [3.0, 4.0], []), stepped(1.0, [-3.0, -4.0], [])]
    exact = Oracle(stepped(1.0, [0.0, 0.0], [1.0, 1.0]), alone)
    run = stepped(1.0, [0.0, 0.0], [1.0 - 7 * U, 1.0 + 2 * U])

    made = Tolerance(exact, [run], 2, torch.float32)

    # Before the first step, parameters have no errors.
    for step, carried in ((0, 0.0), (1, 7 * U * size)):
        error = made.of_loss(step, parts).error
        assert float(error) == near(C * (carried + U + U64 + TINY))


@pytest.mark.parametrize("gradient", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_carries_nothing(gradient: float) -> None:
    right = stepped(1.0, [gradient], [1.0])
    run = stepped(1.0, [gradient], [1.0 + U])

    made = Tolerance(Oracle(right, [right, right]), [run], 2, torch.float32)

    assert float(made.of_loss(1, (0,)).error) == near(C * (U + U64 + TINY))


# -- one process that is wrong by itself ----------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "most"),
    [
        pytest.param(torch.float64, 2.0**-43, id="ten bits of 53"),
        pytest.param(torch.float32, 2.0**-14, id="ten bits of 24"),
        pytest.param(torch.bfloat16, 2.0**-4, id="half of 8 bits"),
    ],
)
def test_what_one_process_may_be_off(dtype: torch.dtype, most: float) -> None:
    assert most_of_one_process(torch.finfo(dtype).eps / 2) == most


@pytest.mark.parametrize(
    ("value", "sound"),
    [
        pytest.param(1.0 + 2.0**-15, True, id="within"),
        pytest.param(1.0 + 2.0**-13, False, id="beyond"),
        pytest.param(math.nan, False, id="NaN"),
        pytest.param(math.inf, False, id="infinite"),
        pytest.param(1e37, False, id="another number altogether"),
    ],
)
@pytest.mark.parametrize("kind", ["gradient", "parameter", "buffer", "loss"])
def test_a_reference_run_is_bounded_by_itself(kind: str, value: float, sound: bool) -> None:
    exact = Oracle(trajectory(kind, doubles([1.0])), [trajectory("gradient", doubles([1.0]))] * 2)
    made = Tolerance(exact, [trajectory(kind, doubles([value]))], 2, torch.float32)

    (found,) = made.one_process
    assert found.sound is sound
    assert math.isinf(found.error) is not math.isfinite(value)
    # Whatever it has, no rank may have that as well.
    assert float(made.of(Quantity(0, kind, "x")).error.max()) <= C * (2.0**-14 + U) + 3 * U


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([trajectory("buffer", doubles([[1.0]]))], id="another shape"),
        pytest.param([trajectory("buffer", doubles([1.0])), Trajectory([], [Step()])], id="none"),
        pytest.param([], id="no run"),
    ],
)
def test_a_reference_run_without_the_tensor_is_wrong(runs: list[Trajectory]) -> None:
    made = Tolerance(Oracle(trajectory("buffer", doubles([1.0])), []), runs, 2, torch.float32)

    assert [one.error for one in made.one_process] == [math.inf]
    assert not made.one_process[0].sound


@pytest.mark.parametrize(
    ("off", "sound"), [(8, True), (9, False)], ids=["eight subnormal numbers", "nine"]
)
def test_a_reference_run_of_nothing(off: int, sound: bool) -> None:
    right, run = (trajectory("buffer", doubles([x])) for x in (0.0, off * TINY))
    made = Tolerance(Oracle(right, []), [run], 2, torch.float32)

    assert made.one_process == [OneProcess(Quantity(0, "buffer", "x"), off * TINY, C * TINY)]
    assert made.one_process[0].sound is sound


COARSEST = {
    "the case's": ({}, 0.0, 2.0**-14),
    "of the exchange": ({"reduce_dtype": torch.bfloat16}, 0.0, 2.0**-4),
    "of losses": ({"compute_dtype": torch.bfloat16}, 0.0, 2.0**-4),
    "of products": ({}, 2.0**-12, 2.0**-6),
}


@pytest.mark.parametrize(("how", "products", "most"), COARSEST.values(), ids=list(COARSEST))
def test_one_process_may_be_off_by_the_coarsest_format_s_errors(
    how: dict[str, Any], products: float, most: float
) -> None:
    exact, runs = runs_of("parameter", [-2.0], [0.0], [3.0])
    runs[1].products = products
    made = Tolerance(exact, runs, 2, torch.float32, **how)

    assert made.one_process == [
        OneProcess(Quantity(0, "parameter", "x"), 3 * U, 2 * most + C * TINY)
    ]


def test_infinity_is_right_where_the_oracle_has_it() -> None:
    right = trajectory("buffer", doubles([-math.inf, 0.5]))
    run = trajectory("buffer", doubles([-math.inf, 0.5 + U]))
    made = Tolerance(Oracle(right, []), [run], 2, torch.float32)

    found = made.of(Quantity(0, "buffer", "x"))
    assert [one.error for one in made.one_process] == [U]
    assert found.error.tolist()[1] == near(C * U, rel=1e-6)
    # What is not finite is no magnitude.
    assert found.scale == 0.5


# -- the factor -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "probability"),
    [
        pytest.param(3, 1.54e-3, id="3"),
        pytest.param(6, 1.33e-5, id="6"),
        pytest.param(8, 8.6e-7, id="8"),
    ],
)
def test_the_chance_of_a_false_alarm_of_one_element(samples: int, probability: float) -> None:
    """By quadrature: that a normal variable is more than C times the largest of so many others."""
    grid = torch.linspace(0, 6, 60_001, dtype=torch.float64)
    within = torch.erf(grid / math.sqrt(2))
    density = samples * within ** (samples - 1) * math.sqrt(2 / math.pi) * (-(grid**2) / 2).exp()
    beyond = torch.erfc(C * grid / math.sqrt(2))

    assert float(torch.trapezoid(density * beyond, grid)) == near(probability, rel=0.02)


def test_one_process_may_be_off_by_what_the_device_s_products_keep() -> None:
    exact, runs = runs_of("parameter", [1.0], [2.0**12])
    made = [Tolerance(exact, runs, 2, torch.float32) for runs[0].products in (0.0, 2.0**-11)]

    assert [one.one_process[0].sound for one in made] == [False, True]


def test_a_trajectory_s_bytes_keep_all_of_it() -> None:
    run = oracle().trajectory
    run.products = 2.0**-11
    run.steps[0].gradient["none"] = None

    again = Trajectory.from_bytes(run.to_bytes())

    assert (again.rows, again.products) == (run.rows, run.products)
    assert again.to_bytes() == run.to_bytes()
    assert again.steps[0].gradient["none"] is None


@pytest.mark.parametrize("parts", [[0], [1], [0, 1]], ids=str)
@pytest.mark.parametrize("step", [1, 2])
def test_errors_of_all_parameters_reach_the_mean_loss(step: int, parts: list[int]) -> None:
    exact = oracle()
    found = tolerance(exact)
    square = 0.0
    for name in exact.trajectory.steps[step].gradient:
        gradients = exact.gradients(step, name)
        seen = found._shown[Quantity(step - 1, "parameter", name)]
        assert gradients is not None
        assert seen is not None
        square += seen.error**2 * float(gradients[parts].mean(0).square().sum())

    assert found._by_parameters(step, parts) == near(math.sqrt(square), rel=1e-12)
    # Before the first step nothing is off.
    assert found._by_parameters(0, parts) == 0


def test_what_has_no_error_for_each_rank_is_named() -> None:
    quantity = Quantity(1, "parameter", "bias")

    with pytest.raises(KeyError) as raised:
        tolerance(oracle()).by_rank(quantity)

    assert raised.value.args == (quantity,)
