"""Small parts of a tensor, and the optimizer's state between steps, in real trainings in one process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest
import torch
from making import near
from torch import nn
from torch.nn import functional as F

from distparity import devices
from distparity.devices.context import RankContext
from distparity.scenarios import Batch, Scenario
from distparity.strategies.base import state_keys
from distparity.strategies.single import Reference
from distparity.training.loop import Recipe, train
from distparity.training.reference import Oracle, consult, reference_runs, twin
from distparity.training.trajectory import Step, Tensors, Trajectory
from distparity.verification.findings import Quantity, Verdict
from distparity.verification.tolerance import (
    Tolerance,
    gradient_sizes,
    gradient_terms,
    state_scale,
)
from distparity.verification.verdict import judge

Change = Callable[[Trajectory], None]
RANKS = 2
BOTH = ["0.bias", "0.weight", "2.bias", "2.weight"]


class RareOutput(Scenario):
    """The last output hardly matters to the loss, so that its bias has a small gradient."""

    steps = 4

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))

    def batch(self, rows: int) -> Batch:
        return torch.randn(rows, 6), torch.randn(rows, 4)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        x, target = batch
        weight = torch.tensor([1.0, 1.0, 1.0, 3e-7], dtype=x.dtype)
        return F.mse_loss(model(x) * weight, target * weight)

    def optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.01, eps=1e-3)


@cache
def trained() -> tuple[Tolerance, Trajectory]:
    """The tolerance of two ranks, and a right run in an order that no reference run has."""
    torch.set_num_threads(1)
    context = RankContext(0, 1, torch.device("cpu"), devices.get("cpu"))
    recipe = Recipe(RareOutput(), torch.float32, torch.float32, 4 * RANKS, 1)
    runs = list(reference_runs(recipe, context, RANKS))
    order = list(reversed(range(recipe.rows)))
    another = train(recipe, Reference(None, RANKS), context, order=order, parts=RANKS)
    return Tolerance(consult(recipe, context, RANKS), runs, RANKS, torch.float32), another


def judged(*changes: Change) -> Verdict:
    """Of two ranks with the same run, changed in place."""
    known, run = trained()
    mine = copy.deepcopy(run)
    for change in changes:
        change(mine)
    return judge(known, [mine, copy.deepcopy(mine)])


def lose_small(kind: str, name: str) -> Change:
    """In every step, all that is below a hundred-thousandth of the largest is zero."""

    def change(run: Trajectory) -> None:
        for step in run.steps:
            value = getattr(step, kind)[name]
            value[value.abs() < 1e-5 * value.abs().max()] = 0

    return change


def wrong(step: int, name: str, factor: float) -> Change:
    def change(run: Trajectory) -> None:
        value = run.steps[step].optimizer[name]
        assert value is not None
        value.mul_(factor)

    return change


def round_last(run: Trajectory) -> None:
    """In the last step alone, gradients are rounded to bfloat16."""
    for value in run.steps[-1].gradient.values():
        assert value is not None
        value.copy_(value.bfloat16())


def test_a_right_run_passes() -> None:
    found = judged()

    assert found.passed
    assert 0 < found.ratio < 0.5


FAULTS = {
    "a bias's small gradients": (lose_small("gradient", "2.bias"), (0, "gradient")),
    "a bias's small mean": (lose_small("optimizer", "2.bias.exp_avg"), (0, "optimizer")),
    "a bias's small squares": (lose_small("optimizer", "2.bias.exp_avg_sq"), (0, "optimizer")),
    "the last step's gradients rounded": (round_last, (3, "gradient")),
    "squares wrong in step 1 alone": (wrong(1, "0.weight.exp_avg_sq", 1.5), (1, "optimizer")),
    "a mean wrong in step 2 alone": (wrong(2, "0.bias.exp_avg", 1.001), (2, "optimizer")),
    "a state missing in step 1": (
        lambda run: run.steps[1].optimizer.pop("0.weight.exp_avg"),
        (1, "optimizer"),
    ),
}


@pytest.mark.parametrize(("change", "where"), FAULTS.values(), ids=list(FAULTS))
def test_what_is_small_or_passing_is_red(change: Change, where: tuple[int, str]) -> None:
    found = judged(change)

    assert found.ratio > 10
    first = found.divergences[0].quantity
    assert (first.step, first.kind) == where


def test_one_rank_is_enough_for_a_state_between_steps() -> None:
    known, run = trained()
    parts = [copy.deepcopy(run) for _ in range(RANKS)]
    for step in range(4):
        for number, name in enumerate(sorted(run.steps[step].optimizer)):
            del parts[number % RANKS].steps[step].optimizer[name]

    assert judge(known, parts).passed


def test_a_strategy_that_shows_no_state_is_judged_by_the_end() -> None:
    known, run = trained()
    mine = copy.deepcopy(run)
    for step in mine.steps:
        step.optimizer = {}

    assert not judge(known, [mine, copy.deepcopy(mine)]).passed
    assert judge(known, [mine, copy.deepcopy(mine)], shows_state=False).passed


@pytest.mark.parametrize("often", [False, True], ids=["once a step", "with every micro-batch"])
def test_a_reference_run_rounds_a_gradient_as_often_as_ranks_send_it(*, often: bool) -> None:
    class Accumulating(RareOutput):
        rows_per_rank = 6
        micro_batches = 3
        exchange_last_only = not often

    recipe = Recipe(Accumulating(), torch.float32, torch.float32, 6 * RANKS, 1)
    model, batch = recipe.model(), recipe.batch(0)
    each = []
    for one in zip(*(tensor.split(2) for tensor in batch), strict=True):
        share = recipe.scenario.loss(model, one) / 6
        each.append(torch.autograd.grad(share, model[0].weight)[0])  # type: ignore[index]
    # Of each exchange, what each of two ranks sends.
    once = [[each[0] + each[1] + each[2], each[3] + each[4] + each[5]]]
    exchanges = [each[:2], each[2:4], each[4:]] if often else once
    total = sum((one.bfloat16() + other.bfloat16()).float() for one, other in exchanges)

    context = RankContext(0, 1, torch.device("cpu"), devices.get("cpu"))
    found = train(recipe, Reference(torch.bfloat16, RANKS), context, parts=RANKS)

    gradient = found.steps[0].gradient["0.weight"]
    assert gradient is not None
    # The last bit before rounding depends on how the share of a loss is computed.
    assert (gradient == total).float().mean() > 0.9


class Pairs(RareOutput):
    """Its loss refuses a single row."""

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        if len(batch[0]) < 2:
            raise ValueError("expected more than one row")
        return super().loss(model, batch)


class Noisy(RareOutput):
    """Its forward draws random numbers."""

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return super().loss(model, batch) * (1 + torch.rand(()))


@pytest.mark.parametrize(("scenario", "rows"), [(Pairs(), [[]] * 4), (Noisy(), [BOTH] * 4)])
def test_the_oracle_s_rows_leave_no_trace(scenario: Scenario, rows: list[list[str]]) -> None:
    context = RankContext(0, 1, torch.device("cpu"), devices.get("cpu"))
    recipe = Recipe(scenario, torch.float32, torch.float32, 4 * RANKS, 1)

    found = consult(recipe, context, RANKS)

    assert [sorted(step.gradient) for step in found.rows.steps] == rows
    assert found.trajectory.to_bytes() == twin(recipe, context).to_bytes()


@pytest.mark.parametrize(
    ("kind", "options", "keys"),
    [
        (torch.optim.SGD, {"momentum": 0.9}, ["momentum_buffer"]),
        (torch.optim.SGD, {}, []),
        (torch.optim.Adam, {}, ["exp_avg", "exp_avg_sq", "step"]),
        (torch.optim.Adagrad, {}, ["step", "sum"]),
        (torch.optim.RMSprop, {}, ["square_avg", "step"]),
    ],
)
def test_what_an_optimizer_keeps(kind: Any, options: dict[str, Any], keys: list[str]) -> None:
    made = kind([nn.Parameter(torch.ones(3))], lr=0.1, **options)

    assert [key for key in state_keys(made) if key in keys] == keys
    assert all(bool((group["params"][0] == 1).all()) for group in made.param_groups)


# -- the documented scales, by hand ------------------------------------------------------------------


def doubles(table: object) -> torch.Tensor:
    return torch.tensor(table, dtype=torch.float64)


def test_the_scale_of_a_bias_is_the_mean_of_its_rows_sizes() -> None:
    known, _ = trained()
    oracle, name = known.oracle, "0.bias"
    recipe = Recipe(RareOutput(), torch.float32, torch.float64, 4 * RANKS, 1)
    model, (x, target) = recipe.model(), recipe.batch(0)
    each = [
        torch.autograd.grad(recipe.scenario.loss(model, one), model[0].bias)[0].abs()  # type: ignore[index]
        for one in zip(x.split(1), target.split(1), strict=True)
    ]
    gradient = oracle.trajectory.steps[0].gradient[name]
    assert gradient is not None

    found = gradient_sizes(oracle, 0, name, gradient, torch.zeros(8).double())

    by_hand = torch.stack(each).mean(0).tolist()
    assert found.tolist() == near(by_hand)


SIZES = {
    # Parts, rows, the gradient, and the scale.
    "rows that cancel in a part": ([[0.5, 1.0]], [2.0, 1.0], [0.5, 1.0], [2.0, 1.0]),
    "clipped to a half": ([[0.5, 1.0]], [2.0, 1.0], [0.25, 0.5], [1.0, 0.5]),
    "at least the terms of the ranks": ([[1.0, -3.0]], [0.0, 3.0], [1.0, -3.0], [1.0, 3.0]),
    "parts that do not explain it": ([[1.0, 0.0]], [1.0, 0.0], [1.0, 2.0], [2.0, 2.0]),
    "no rows alone": ([[1.0, 2.0]], None, [1.0, 2.0], [2.0, 2.0]),
}


@pytest.mark.parametrize(("parts", "rows", "gradient", "scale"), SIZES.values(), ids=list(SIZES))
def test_the_scale_of_a_gradient_of_one_dim(
    parts: Any, rows: Any, gradient: object, scale: object
) -> None:
    looks = [Trajectory(steps=[Step(gradient={"x": doubles(part)})]) for part in parts]
    alone = Trajectory(steps=[] if rows is None else [Step(gradient={"x": doubles(rows)})])
    exact = Oracle(Trajectory(), looks, alone)

    terms = gradient_terms(exact, 0, "x", doubles(gradient))

    assert gradient_sizes(exact, 0, "x", doubles(gradient), terms).tolist() == scale


def vectors(*steps: tuple[list[float], list[float]]) -> Trajectory:
    """Two parameters, ``a.b`` and ``a.c``; each step's gradient and mean of both."""
    run = Trajectory()
    for gradient, mean in steps:
        both: list[Tensors] = [
            {f"a.{name}{key}": size * doubles(value) for name, size in (("b", 1.0), ("c", 8.0))}
            for key, value in (("", gradient), (".mean", mean))
        ]
        run.steps.append(Step(gradient=both[0], optimizer=both[1]))
    return run


@pytest.mark.parametrize(
    ("kind", "name", "scales"),
    [
        pytest.param("gradient", "a.b", [[2.0, 2.0**-20], [1.0, 2.0**-19]], id="a gradient"),
        # The largest scale of the gradients so far.
        pytest.param("optimizer", "a.b.mean", [[2.0, 2.0**-20], [2.0, 2.0**-19]], id="a state"),
    ],
)
def test_vectors_are_allowed_errors_in_proportion_to_their_scale(
    kind: str, name: str, scales: list[list[float]]
) -> None:
    exact = vectors(*[([0.5, 2.0**-21], [-0.5, 2.0**-30])] * 2)
    rows = vectors(([2.0, 2.0**-20], []), ([1.0, 2.0**-19], []))
    run = copy.deepcopy(exact)
    for step in run.steps:
        for tensor in (step.gradient["a.b"], step.optimizer["a.b.mean"]):
            assert tensor is not None
            tensor[0] += 4 * 2.0**-24

    known = Tolerance(Oracle(exact, [exact, exact], rows), [run], 2, torch.float32)

    for number, (large, small) in enumerate(scales):
        value = getattr(exact.steps[number], kind)[name].abs().tolist()
        stored = [(2.0**-24 + 2.0**-53) * size for size in value]
        errors = [4 * 2.0**-24, 4 * 2.0**-24 / large * small + stored[1]]
        ranks = 2 if kind == "gradient" else 0
        by_hand = [
            8 * (error + 2.0**-149) + ranks * (kept + 2.0**-149)
            for error, kept in zip(errors, stored, strict=True)
        ]
        found = known.of(Quantity(number, kind, name)).error
        assert found is not None
        assert found.tolist() == near(by_hand)


STATES = {
    # The state, the largest scale of the gradients, and the scale of the state.
    "a mean": ([-0.5, 1e-9], [1.0, 1e-6], [1.0, 1e-6]),
    "a sum of two steps": ([2.0, 1e-6], [1.0, 1e-6], [1.0, 1e-6]),
    "squares": ([0.25, 1e-14], [1.0, 1e-6], [0.5, 1e-13]),
    "squares of nothing": ([0.25, 0.0], [1.0, 1e-6], [0.5, 0.0]),
    "squares of the largest": ([2.0, 0.5], [1.0, 0.5], [2.0**0.5, 0.5**1.5]),
    "a mean of large ones": ([-3.0, 1.0], [4.0, 4.0], [4.0, 4.0]),
    "more than the gradients sum to": ([3.0, 1e-6], [1.0, 1e-6], [3.0, 3.0]),
    "no gradients": ([3.0, 1e-6], None, [3.0, 3.0]),
    "of another shape": ([3.0, 1e-6], [1.0], [3.0, 3.0]),
}


@pytest.mark.parametrize(("state", "reached", "scale"), STATES.values(), ids=list(STATES))
def test_the_scale_of_a_state_of_one_dim(state: object, reached: object, scale: object) -> None:
    known = None if reached is None else doubles(reached)

    assert state_scale(doubles(state), known, 2).tolist() == near(scale)


@pytest.mark.parametrize("step", [0, 3])
def test_a_state_is_allowed_what_the_formula_gives(step: int) -> None:
    known, _ = trained()
    quantity = Quantity(step, "optimizer", "2.bias.exp_avg_sq")
    right = known.oracle.trajectory.steps[step].optimizer[quantity.name]
    assert right is not None
    size = right.tolist()
    found = [run.steps[step].optimizer[quantity.name] for run in known.reference_runs]
    errors = [max(abs(float(one[i]) - size[i]) for one in found) for i in range(4)]  # type: ignore[index]
    reached = [
        max(float(known.oracle.rows.steps[t].gradient["2.bias"][i]) for t in range(step + 1))  # type: ignore[index]
        for i in range(4)
    ]
    scale = [size[i] ** 0.5 * reached[i] for i in range(4)]
    stored = [(2.0**-24 + 2.0**-53) * size[i] for i in range(4)]
    relative = max(errors[i] / scale[i] for i in range(4))

    allowed = known.of(quantity).error
    assert allowed is not None
    for i in range(4):
        most = max(*errors, *stored)
        explained = min(max(errors) + stored[i], relative * scale[i] + stored[i], most)
        assert float(allowed[i]) == near(8 * (explained + 2.0**-149))
