"""What a pattern of wrong numbers is called; none is better than a wrong one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from making import FLOAT32, oracle, right, tolerance

from distparity.training.reference import Oracle
from distparity.training.trajectory import Trajectory
from distparity.verification.diagnosis import diagnose
from distparity.verification.verdict import judge

Gradient = Callable[[Oracle, int, int, str], torch.Tensor]


def called(gradient: Gradient | None = None, ranks: int = 4, **parameter: object) -> str | None:
    """The diagnosis where ``gradient`` of the oracle, step, rank and name is what a rank has."""
    exact = oracle(ranks)
    runs = right(exact)
    for rank, run in enumerate(runs):
        for step, name in itertools.product((1, 2), ("weight", "bias")):
            if gradient is not None:
                run.steps[step].gradient[name] = gradient(exact, step, rank, name).float()
    for change in parameter.values():
        change(exact, runs)
    found = judge(tolerance(exact), runs)
    assert not found.passed
    return diagnose(exact, runs, found, torch.float32, FLOAT32)


def mean(*ranks: int) -> Gradient:
    def of(exact: Oracle, step: int, rank: int, name: str) -> torch.Tensor:
        parts = [exact.parts[r].steps[step].gradient[name] for r in ranks]
        return torch.stack(parts).mean(0)

    return of


def whole(exact: Oracle, step: int, rank: int, name: str) -> torch.Tensor:
    return exact.trajectory.steps[step].gradient[name]


def own(exact: Oracle, step: int, rank: int, name: str) -> torch.Tensor:
    """Gathered from shards of one row each, of which every rank has its own gradient."""
    rows = [part.steps[step].gradient[name][number] for number, part in enumerate(exact.parts)]
    return torch.stack(rows)


PATTERNS = {
    "summed": (
        lambda *at: 4 * whole(*at),
        "gradients summed, not averaged: a constant factor of the world size, 4",
    ),
    "averaged twice": (
        lambda *at: whole(*at) / 4,
        "gradients averaged twice: a constant factor of 1/4",
    ),
    "scaled": (lambda *at: 1.5 * whole(*at), "gradients off by a constant factor of 1.5"),
    "not reduced": (
        own,
        "local gradients, not reduced at all: every element is one rank's own",
    ),
    "left out": (
        mean(0, 1, 3),
        "the mean over ranks [0, 1, 3] only: rank 2 left out of the mean",
    ),
    "missing from the sum": (
        lambda exact, step, rank, name: (
            whole(exact, step, rank, name) - exact.parts[2].steps[step].gradient[name] / 4
        ),
        "rank 2's contribution missing from the sum",
    ),
    "in place of another": (
        mean(0, 1, 2, 0),
        "rank 0's contribution in place of rank 3's",
    ),
    "in another place": (
        lambda *at: whole(*at).flip(0),
        "right values in the wrong places: a shard swapped, shifted or padded wrongly",
    ),
    "zero at the end": (
        lambda *at: torch.cat([whole(*at).flatten()[:-1], torch.zeros(1)]).reshape(
            whole(*at).shape
        ),
        "elements lost: zeros in place of values, as in a wrongly padded short shard",
    ),
    "rounded": (
        lambda *at: (whole(*at) * 0.7).bfloat16().double() / 0.7,
        "reduced precision: errors as large as those of rounding to bfloat16",
    ),
    "nothing that is known": (lambda *at: whole(*at).sin() + 0.125, None),
}


@pytest.mark.parametrize(("gradient", "name"), PATTERNS.values(), ids=list(PATTERNS))
def test_a_gradient_s_pattern(gradient: Gradient, name: str | None) -> None:
    assert called(gradient) == name


def test_a_replica_that_differs() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        runs[2].steps[1].parameter["bias"] = runs[2].steps[1].parameter["bias"] * (1 + 2.0**-23)

    assert (
        called(parameter=change) == "replicas differ: the parameter of rank 2 is not that of rank 0"
    )


def test_another_initial_state() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        runs[1].initial["bias"] = runs[1].initial["bias"] + 1

    assert called(parameter=change) == (
        "the initial state of rank 1 differs from the common initial state"
    )


def test_a_step_that_was_not_made() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        for run in runs:
            run.steps[1].parameter = dict(run.steps[0].parameter)

    assert called(parameter=change) == (
        "stale parameters: elements that the optimizer's step did not move"
    )


def test_a_loss_of_stale_parameters() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        for run in runs:
            run.steps[1].loss = {"loss": run.steps[1].loss["loss"] + 1}

    assert called(parameter=change) == (
        "stale parameters: this step's forward did not compute with what the optimizer left in "
        "the step before"
    )


def test_an_update_that_is_too_large() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        before, after = exact.trajectory.steps[0].parameter, exact.trajectory.steps[1].parameter
        for run in runs:
            run.steps[1].parameter = {
                name: (2 * value - before[name]).float() for name, value in after.items()
            }

    found = called(parameter=change)

    # Of plain SGD, along the gradient is along the update.
    assert found == "optimizer state lost: the update is along this step's gradient alone"
