"""The check that a scenario is evidence, and that one process on the device computes correctly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from making import oracle, shaken, tolerance

from distparity.scenarios import Scenario
from distparity.training.reference import Oracle
from distparity.training.trajectory import Step, Trajectory
from distparity.verification import evidence
from distparity.verification.tolerance import Allowed, Tolerance

Change = Callable[[Oracle], None]


def faults(change: Change | None = None, scenario: type[Scenario] = Scenario) -> list[str]:
    exact = oracle()
    if change is not None:
        change(exact)
    return evidence.faults(scenario(), tolerance(exact))


def test_what_is_alive_has_no_faults() -> None:
    assert faults() == []


def set_gradients(exact: Oracle, step: int, name: str, value: torch.Tensor) -> None:
    """The same on every rank, and so their mean."""
    for run in [*exact.parts, exact.trajectory]:
        run.steps[step].gradient[name] = value


def standing_still(exact: Oracle) -> None:
    exact.trajectory.steps[1].parameter["bias"] = exact.trajectory.steps[0].parameter["bias"]


def constant_loss(exact: Oracle) -> None:
    for run in [*exact.parts, exact.trajectory]:
        for step in run.steps:
            step.loss = {"loss": torch.tensor(1.0).double()}


def no_number(step: int | None, kind: str, name: str, value: float) -> Change:
    def change(exact: Oracle) -> None:
        run = exact.trajectory
        group = getattr(run if step is None else run.steps[step], kind)
        group[name] = torch.full_like(group[name], value)

    return change


DEAD = {
    "a gradient of nothing": (
        lambda exact: set_gradients(exact, 1, "bias", torch.zeros(4).double()),
        "step 1, bias: the gradient is negligible",
    ),
    "no gradient": (
        lambda exact: exact.trajectory.steps[1].gradient.update(bias=None),
        "step 1, bias: there is no gradient",
    ),
    "one gradient on all ranks": (
        lambda exact: set_gradients(exact, 1, "bias", torch.ones(4).double()),
        "step 1, bias: every rank has the same gradient",
    ),
    "a parameter that stands still": (standing_still, "step 1, bias: the parameter does not move"),
    "a constant loss": (constant_loss, "the loss is constant or zero"),
    "a gradient of NaN": (no_number(1, "gradient", "bias", math.nan), "step 1, bias: not finite"),
    "an infinite parameter": (
        no_number(1, "parameter", "bias", math.inf),
        "step 1, bias: not finite",
    ),
    "a loss of NaN": (no_number(1, "loss", "loss", math.nan), "step 1, loss 'loss': not finite"),
    "a buffer of NaN": (no_number(1, "buffer", "mean", math.nan), "step 1, buffer 'mean': not fin"),
    "an infinite second moment": (
        no_number(None, "optimizer", "weight.square", math.inf),
        "after training, optimizer 'weight.square': not finite",
    ),
}


@pytest.mark.parametrize(("change", "fault"), DEAD.values(), ids=list(DEAD))
def test_what_is_dead_is_no_evidence(change: Change, fault: str) -> None:
    found = faults(change)

    assert any(one.startswith(fault) for one in found), found
    # What is not finite is said once.
    assert sum("not finite" in one for one in found) == ("not fin" in fault)


def test_a_buffer_may_be_infinite() -> None:
    assert oracle().trajectory.steps[0].buffer["mask"].isinf().any()
    assert faults() == []


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        pytest.param("gradient", "it exempts 'gradient' (why), but without that", id="gradients"),
        pytest.param(
            "parameter", "it exempts 'parameter' (why), but without that", id="parameters"
        ),
        pytest.param("buffers", "it exempts 'buffers', which is not a kind", id="misspelt"),
        pytest.param("buffer", None, id="buffers"),
        pytest.param("loss", None, id="losses"),
    ],
)
def test_what_a_scenario_may_leave_out(kind: str, fault: str | None) -> None:
    found = faults(scenario=type("Leaving", (Scenario,), {"exempt": {kind: "why"}}))

    assert [one[: len(fault or "")] for one in found] == ([] if fault is None else [fault])


def test_an_unused_parameter_has_no_gradient() -> None:
    class Idle(Scenario):
        def idle(self, step: int) -> list[str]:
            return ["bias"] if step == 1 else []

    assert faults(scenario=Idle) == [
        "step 1, bias: it has a gradient, but the scenario declares none"
    ]
    assert faults(lambda exact: exact.trajectory.steps[1].gradient.update(bias=None), Idle) == []


def test_an_unknown_parameter_is_no_unused_one() -> None:
    class Idle(Scenario):
        def idle(self, step: int) -> list[str]:
            return ["none"] if step == 1 else []

    assert faults(scenario=Idle) == ["step 1: there is no parameter 'none'"]


# -- one process by itself -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.5, 1e37, math.nan, math.inf])
@pytest.mark.parametrize("kind", ["loss", "gradient", "parameter", "buffer", "optimizer"])
def test_one_process_that_is_wrong_is_found_in_every_kind(kind: str, value: float) -> None:
    exact = oracle()
    runs = [shaken(exact.trajectory, seed, 1.0, torch.float32) for seed in range(6)]
    group = runs[3].optimizer if kind == "optimizer" else getattr(runs[3].steps[1], kind)
    name = min(set(group) - {"mask", "turns", "weight.step"})
    group[name] = group[name] + value

    found = evidence.wrong_in_one_process(Tolerance(exact, runs, 2, torch.float32))

    where = "after training" if kind == "optimizer" else "step 1"
    assert [one.partition(":")[0] for one in found] == [f"{where}, {kind} {name!r}"]


def test_one_process_that_rounds_is_right() -> None:
    assert evidence.wrong_in_one_process(tolerance()) == []


# -- one rank's gradient among many ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("ranks", [2, 8])
def test_from_how_many_ranks_on_one_of_them_does_not_show(ranks: int, dtype: torch.dtype) -> None:
    known = tolerance(oracle(ranks), dtype)

    found = evidence.one_rank_shows_below(known)

    assert found == _by_search(known)


def _by_search(known: Tolerance) -> int:
    """The same by trying one number of ranks after the other."""
    exact = known.oracle

    def shows(count: int, step: int, rank: int) -> bool:
        for name in ("weight", "bias"):
            quantity = evidence.Quantity(step, "gradient", name)
            each = known.by_rank(quantity)
            allowed = known.of(quantity).error + (count - known.ranks) * each
            alone = exact.parts[rank].steps[step].gradient[name].abs()
            if bool((alone / count > allowed).any()):
                return True
        return False

    low, high = 1, 2**20
    pairs = [(step, rank) for step in range(3) for rank in range(known.ranks)]
    while high - low > 1:
        middle = (low + high) // 2
        if all(shows(middle, *pair) for pair in pairs):
            low = middle
        else:
            high = middle
    return high


def test_a_single_rank_is_missing_among_no_others() -> None:
    assert evidence.one_rank_shows_below(tolerance(oracle(1))) is None


# -- to the letter ---------------------------------------------------------------------------------------


def allowed(change: Change, kind: str, name: str = "bias", step: int = 1) -> float:
    exact = oracle()
    change(exact)
    return float(tolerance(exact).of(evidence.Quantity(step, kind, name)).error.max())


def test_what_is_said_of_a_gradient_of_nothing() -> None:
    def change(exact: Oracle) -> None:
        set_gradients(exact, 1, "bias", torch.full((4,), 1e-50, dtype=torch.float64))

    bound = allowed(change, "gradient")

    assert faults(change) == [
        f"step 1, bias: the gradient is negligible: 1.0e-50, allowed error {bound:.1e}"
    ]


def test_what_is_said_of_a_parameter_that_stands_still() -> None:
    bound = allowed(standing_still, "parameter")

    assert faults(standing_still) == [
        f"step 1, bias: the parameter does not move: by 0.0e+00, allowed error {bound:.1e}"
    ]


def test_what_is_said_of_one_gradient_on_all_ranks() -> None:
    def change(exact: Oracle) -> None:
        set_gradients(exact, 1, "bias", torch.arange(1.0, 5.0).double())

    bound = allowed(change, "gradient")

    assert faults(change) == [
        f"step 1, bias: every rank has the same gradient: up to 0.0e+00, allowed error {bound:.1e}"
    ]


def with_bound(
    known: Tolerance, kind: str, error: torch.Tensor, patch: pytest.MonkeyPatch
) -> list[str]:
    """What is said where ``bias`` is allowed this error at step 1."""
    place, of = evidence.Quantity(1, kind, "bias"), known.of
    patch.setattr(known, "of", lambda one: Allowed(error) if one == place else of(one))
    return evidence.faults(Scenario(), known)


@pytest.mark.parametrize(
    ("share", "still"), [(1.0, True), (0.75, False)], ids=["as far as allowed", "farther"]
)
def test_a_parameter_moves_farther_than_it_may_be_off(
    monkeypatch: pytest.MonkeyPatch, share: float, still: bool
) -> None:
    known = tolerance()
    before, after = (step.parameter["bias"] for step in known.oracle.trajectory.steps[:2])

    found = with_bound(known, "parameter", share * (after - before).abs(), monkeypatch)

    assert [one.startswith("step 1, bias: the parameter does not move") for one in found] == (
        [True] if still else []
    )


def test_ranks_differ_in_an_element_by_more_than_it_may_be_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = oracle()
    set_gradients(exact, 1, "bias", torch.full((4,), 8.0).double())
    for part, off in zip(exact.parts, (0.5, -0.5), strict=True):
        part.steps[1].gradient["bias"] = numbers(8.0 + off, 8.0, 8.0, 8.0)

    # Nothing like 0.5 is allowed to the others, but they are the same.
    found = with_bound(tolerance(exact), "gradient", numbers(1.0, 0.1, 0.1, 0.1), monkeypatch)

    assert found == [
        "step 1, bias: every rank has the same gradient: up to 5.0e-01, allowed error 1.0e+00"
    ]


def losses_of(*values: float) -> Change:
    def change(exact: Oracle) -> None:
        for run in [*exact.parts, exact.trajectory]:
            for step, value in zip(run.steps, values, strict=True):
                step.loss = {"loss": torch.tensor(value).double()}

    return change


@pytest.mark.parametrize(
    ("losses", "wrong"),
    [
        pytest.param([2.0, 2.0, 2.0], True, id="constant"),
        pytest.param([2.0, 0.0, 1.0], True, id="zero once"),
        pytest.param([2.0, 1.0, 2.0], False, id="two values"),
    ],
)
def test_what_is_said_of_losses(losses: list[float], wrong: bool) -> None:
    assert faults(losses_of(*losses)) == (
        [f"the loss is constant or zero: {losses}"] if wrong else []
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_one_step_is_enough(ranks: int) -> None:
    assert evidence.faults(Scenario(), tolerance(oracle(ranks, steps=1))) == []


def test_what_is_said_of_what_a_scenario_leaves_out() -> None:
    class Leaving(Scenario):
        exempt = {"gradient": "a", "buffer": "b", "parameter": "c"}  # noqa: RUF012

    assert faults(scenario=Leaving) == [
        "it exempts 'gradient' (a), but without that quantity nothing is compared",
        "it exempts 'parameter' (c), but without that quantity nothing is compared",
    ]


NOT_FINITE = {
    "a parameter in the beginning": (
        lambda exact: exact.trajectory.initial.update(bias=torch.full((4,), math.inf).double()),
        "before training, initial 'bias': not finite",
    ),
    "a mask that is NaN": (
        no_number(1, "buffer", "mask", math.nan),
        "step 1, buffer 'mask': not finite",
    ),
    "a mask that is NaN in the beginning": (
        no_number(None, "initial", "mask", math.nan),
        "before training, initial 'mask': not finite",
    ),
    "a buffer after one of None": (
        lambda exact: exact.trajectory.steps[1].buffer.update(
            mean=None, mask=torch.full((2, 2), math.nan).double()
        ),
        "step 1, buffer 'mask': not finite",
    ),
}


@pytest.mark.parametrize(("change", "fault"), NOT_FINITE.values(), ids=list(NOT_FINITE))
def test_what_is_said_of_what_is_not_finite(change: Change, fault: str) -> None:
    assert fault in faults(change)


def test_an_empty_parameter_is_no_fault() -> None:
    def change(exact: Oracle) -> None:
        empty = torch.zeros(0).double()
        exact.trajectory.initial["bias"] = empty
        for run in [*exact.parts, exact.trajectory]:
            for step in run.steps:
                step.gradient["bias"] = step.parameter["bias"] = empty

    assert faults(change) == []


def test_an_infinite_gradient_is_said_once() -> None:
    found = faults(no_number(1, "gradient", "bias", math.inf))

    assert found == ["step 1, bias: not finite"]


def test_an_error_of_one_process_is_said_with_its_size() -> None:
    exact = oracle()
    runs = [shaken(exact.trajectory, seed, 0.0, torch.float32) for seed in range(2)]
    runs[1].steps[1].parameter["bias"] = exact.trajectory.steps[1].parameter["bias"] + 0.5
    largest = float(exact.trajectory.steps[1].parameter["bias"].abs().max())

    found = evidence.wrong_in_one_process(Tolerance(exact, runs, 2, torch.float32))

    assert found == [
        f"step 1, parameter 'bias': off by 0.5; one process may be off by at most {2**-14 * largest:.3g}"
    ]


CLEAR = {
    "four times as much": ([4.0, 0.0], [1.0, 8.0], True),
    "less": ([3.9, 0.0], [1.0, 8.0], False),
    "of the other sign": ([-4.0, 0.0], [1.0, 8.0], True),
    "in proportion to what is allowed": ([0.0, 4.0], [1.0, 8.0], False),
    "nothing": ([0.0, 0.0], [0.0, 0.0], False),
    "next to nothing": ([1e-9, 0.0], [0.0, 0.0], True),
}


@pytest.mark.parametrize(("change", "allowed", "clear"), CLEAR.values(), ids=list(CLEAR))
def test_whether_a_change_is_clear(change: list[float], allowed: list[float], clear: bool) -> None:
    assert evidence._clear(numbers(*change), numbers(*allowed)) is clear


def one_step(*parts: dict[str, torch.Tensor | None], steps: int = 1) -> Oracle:
    """Of parts of which the first is the whole as well."""
    runs = [Trajectory(steps=[Step(gradient=part)] * steps) for part in parts]
    return Oracle(runs[0], runs)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def shows_below(exact: Oracle) -> int | None:
    return evidence.one_rank_shows_below(Tolerance(exact, [exact.trajectory], 2, torch.float32))


def test_from_how_many_ranks_on_by_hand() -> None:
    """Terms of 0.75: each rank adds 0.75 u, and 8 times 1 u is allowed for what is stored."""
    whole = Trajectory(steps=[Step(gradient={"x": numbers(0.75)})])
    exact = Oracle(whole, one_step({"x": numbers(1.0)}, {"x": numbers(0.5)}).parts)
    u, fixed, each = 2.0**-24, 8 * 0.75, 0.75

    # p (fixed u + p each u) = 0.5, the smaller one of the two.
    most = (-fixed + math.sqrt(fixed**2 + 4 * each * 0.5 / u)) / (2 * each)

    assert shows_below(exact) == math.floor(most) + 1


@pytest.mark.parametrize(
    "other",
    [None, numbers(), torch.tensor([1.0])],
    ids=["none", "empty", "as large"],
)
def test_the_parameter_that_shows_it_best_counts(other: torch.Tensor | None) -> None:
    alone = {"x": numbers(1.0)}

    assert shows_below(one_step({"a": other, **alone}, {"a": other, **alone})) == shows_below(
        one_step(alone, alone)
    )


def test_a_gradient_without_parts_shows_nothing() -> None:
    alone = {"x": numbers(1.0)}
    exact = one_step(alone, alone)
    whole = Trajectory(steps=[Step(gradient={"a": numbers(1.0), **alone})])

    assert shows_below(Oracle(whole, exact.parts)) == shows_below(exact)


@pytest.mark.parametrize("gradient", [{}, {"x": numbers(0.0)}], ids=["none", "of zero"])
def test_steps_without_gradients_show_nothing(gradient: dict[str, torch.Tensor]) -> None:
    alone = {"x": numbers(1.0)}
    exact = one_step(alone, alone)
    for run in exact.parts:
        run.steps = [Step(gradient=gradient), *run.steps]

    assert shows_below(exact) == shows_below(one_step(alone, alone))
    assert shows_below(one_step(gradient, gradient)) is None


def test_the_worst_step_counts() -> None:
    large, small = ({"x": numbers(size)} for size in (1.0, 1.0))
    exact = one_step(large, small)
    worse = one_step({"x": numbers(1.0)}, {"x": numbers(0.25)})
    for run, other in zip(exact.parts, worse.parts, strict=True):
        run.steps = [*other.steps, *run.steps]

    assert shows_below(exact) == shows_below(worse)
    assert shows_below(worse) < shows_below(one_step(large, small))
