"""Small trajectories made by hand: what a training of two parameters might have recorded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch

from distparity.training.reference import Oracle
from distparity.training.trajectory import Step, Trajectory
from distparity.verification.findings import Verdict
from distparity.verification.tolerance import Tolerance
from distparity.verification.verdict import judge

torch.set_num_threads(1)
FLOAT32 = 2.0**-24
#: Without the 1e-12 that pytest allows by itself: that is much beside an allowed error.
near = partial(pytest.approx, rel=1e-9, abs=0.0)
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def oracle(ranks: int = 2, steps: int = 3, *, seed: int = 0, size: float = 1.0) -> Oracle:
    """SGD on made-up gradients: ``weight`` [4, 3] and ``bias`` [4], a buffer and a momentum."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        # What every dtype here holds exactly.
        return torch.randn(shape, generator=draw, dtype=torch.float64).bfloat16().double()

    parameter = {"weight": random(4, 3), "bias": random(4)}
    buffer = {"mean": random(4), "turns": torch.tensor(2**53 + 1), "mask": _mask()}
    run = Trajectory({**buffer, **parameter}, rows=list(range(4 * ranks)))
    parts = [Trajectory(rows=list(range(4 * r, 4 * r + 4))) for r in range(ranks)]
    for _ in range(steps):
        for part in parts:
            gradient = {"weight": size * random(4, 3), "bias": size * random(4)}
            part.steps.append(Step({"loss": 1 + random().abs()}, dict(gradient)))
        latest = [part.steps[-1] for part in parts]
        mean = {
            name: torch.stack([step.gradient[name] for step in latest]).mean(0)
            for name in parameter
        }
        parameter = {name: value - 0.1 * mean[name] for name, value in parameter.items()}
        buffer = {**buffer, "mean": 0.9 * buffer["mean"] + 0.1 * random(4)}
        loss = {"loss": torch.stack([step.loss["loss"] for step in latest]).mean()}
        run.steps.append(Step(loss, mean, parameter, dict(buffer)))
    run.optimizer = {
        "weight.step": torch.tensor(float(steps)),
        "weight.square": mean["weight"] ** 2,
    }
    return Oracle(run, parts)


def _mask() -> torch.Tensor:
    return torch.zeros(2, 2).double().masked_fill(torch.ones(2, 2).triu(1).bool(), -torch.inf)


def rounded(run: Trajectory, dtype: torch.dtype = torch.float32) -> Trajectory:
    """The run as a process would have it that computes in ``dtype`` and errs only in storing."""
    made = copy.deepcopy(run)
    groups = [made.initial, made.optimizer]
    groups += [tensors for step in made.steps for _, tensors in step.kinds()]
    for tensors in groups:
        for name, value in tensors.items():
            if value is not None and value.is_floating_point():
                tensors[name] = value.to(dtype)
    return made


def shaken(run: Trajectory, seed: int, by: float, dtype: torch.dtype) -> Trajectory:
    """The run with errors of ``by`` unit roundoffs of each tensor's largest element, rounded."""
    draw = torch.Generator().manual_seed(seed)
    made = copy.deepcopy(run)
    unit = by * torch.finfo(dtype).eps / 2
    for step in made.steps:
        for kind, tensors in step.kinds():
            for name, value in tensors.items():
                still = value is None or not value.numel()
                if still or (kind == "buffer" and name != "mean"):
                    continue
                off = torch.rand(value.shape, generator=draw, dtype=torch.float64) * 2 - 1
                tensors[name] = value + unit * value.abs().max() * off
    return rounded(made, dtype)


def tolerance(
    exact: Oracle | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    by: float = 1.0,
    **how: object,
) -> Tolerance:
    exact = oracle() if exact is None else exact
    runs = [shaken(exact.trajectory, seed, by, dtype) for seed in range(6)]
    return Tolerance(exact, runs, len(exact.parts), dtype, **how)


def right(
    exact: Oracle, dtype: torch.dtype = torch.float32, *, by: float = 1.0
) -> list[Trajectory]:
    """Records of ranks that compute as accurately as one process; replicas are equal bit for bit."""
    run = shaken(exact.trajectory, 1000, by, dtype)
    ranks = []
    for part in exact.parts:
        mine = copy.deepcopy(run)
        mine.rows = list(part.rows or ())
        for step, alone in zip(mine.steps, part.steps, strict=True):
            step.loss = {"loss": alone.loss["loss"].to(dtype)}
        ranks.append(mine)
    return ranks


def verdict(
    change: Callable[[list[Trajectory]], None] | None = None,
    exact: Oracle | None = None,
    dtype: torch.dtype = torch.float32,
    **how: object,
) -> Verdict:
    """Of two ranks that are right but for ``change``, which alters their trajectories in place."""
    known = _default() if exact is None and dtype is torch.float32 else tolerance(exact, dtype)
    ranks = right(known.oracle, dtype)
    if change is not None:
        change(ranks)
    return judge(known, ranks, **how)


@cache
def _default() -> Tolerance:
    return tolerance()
