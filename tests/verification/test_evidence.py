"""The check that a scenario is evidence, and that one process on the device computes correctly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from making import oracle, shaken, tolerance

from distparity.scenarios import Scenario
from distparity.training.reference import Oracle
from distparity.verification import evidence
from distparity.verification.tolerance import Tolerance

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
    assert any(one.startswith(fault) for one in faults(change)), faults(change)


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
