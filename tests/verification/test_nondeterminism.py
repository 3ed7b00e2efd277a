"""How far runs that should be equal are from one another."""

from __future__ import annotations

import pytest
import torch

from distparity.training.trajectory import Step, Trajectory
from distparity.verification.nondeterminism import measure


def run(*tensors: torch.Tensor | None) -> Trajectory:
    """A run of one step with these parameters."""
    return Trajectory(steps=[Step(parameter={str(n): one for n, one in enumerate(tensors)})])


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


SAME = doubles(1.0, -4.0)
PAIRS = {
    "equal": (run(SAME), run(SAME), 0.0),
    "in proportion to the largest": (run(SAME), run(doubles(1.5, -4.0)), 0.125),
    "the largest difference": (run(SAME), run(doubles(0.0, -2.0)), 0.5),
    "the largest of all tensors": (run(SAME, SAME), run(doubles(3.0, -4.0), doubles(1, -3)), 0.5),
    "of zeros, as it is": (run(doubles(0.0, 0.0)), run(doubles(0.0, -0.25)), 0.25),
    "of integers": (run(torch.tensor([8, 1])), run(torch.tensor([6, 1])), 0.25),
    "of what bfloat16 cannot tell apart": (
        run(torch.tensor([1.0, 256.0]).bfloat16()),
        run(torch.tensor([2.0, 256.0]).bfloat16()),
        2.0**-8,
    ),
    "none in the first": (run(None, SAME), run(SAME, doubles(1.5, -4.0)), 0.125),
    "none in the other": (run(SAME, SAME), run(None, doubles(1.5, -4.0)), 0.125),
    "not recorded in the other": (run(SAME, SAME), run(SAME), 0.0),
}


@pytest.mark.parametrize(("one", "other", "far"), PAIRS.values(), ids=list(PAIRS))
def test_how_far(one: Trajectory, other: Trajectory, far: float) -> None:
    assert measure(one, [other]) == ([other] if far else [], far)


def test_the_runs_that_differ_and_the_farthest_of_them() -> None:
    runs = [run(doubles(2.0, -4.0)), run(SAME), run(doubles(1.5, -4.0))]

    assert measure(run(SAME), runs) == ([runs[0], runs[2]], 0.25)
    assert measure(run(SAME), []) == ([], 0.0)


def test_runs_of_other_numbers_of_steps_are_not_compared() -> None:
    with pytest.raises(ValueError, match="zip"):
        measure(run(SAME), [Trajectory(steps=2 * run(SAME).steps)])
