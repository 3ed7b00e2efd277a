"""Whether a scenario is worth anything as evidence: a comparison of nothing proves nothing.

What is asked of the oracle's run is that the faults which the verdict is there for would show: the
sizes that they would change are held against what the verdict allows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import torch

from distparity.scenarios import Scenario
from distparity.training.trajectory import Step
from distparity.verification.findings import Quantity
from distparity.verification.tolerance import Tolerance

__all__ = ["CLEAR", "faults"]

#: A gradient that is lost, or one rank's own, must be off by so many times what is allowed.
CLEAR = 4.0


def faults(scenario: Scenario, tolerance: Tolerance) -> list[str]:
    """What makes the scenario worthless as evidence; empty when nothing does."""
    oracle = tolerance.oracle
    found: list[str] = []
    before = oracle.trajectory.initial
    for number, step in enumerate(oracle.trajectory.steps):
        idle = set(scenario.idle(number))
        found += [f"step {number}: there is no parameter {name!r}" for name in idle - before.keys()]
        for name in step.gradient:
            what = _dead(tolerance, number, name, step, before[name], idle)
            found += [f"step {number}, {name}: {problem}" for problem in what]
        before = step.parameter
    losses = [_scalar(step) for step in oracle.trajectory.steps]
    if any(loss == 0 for loss in losses) or len(set(losses)) < min(2, len(losses)):
        found.append(f"the loss is constant or zero: {losses}")
    return found


def _dead(
    tolerance: Tolerance,
    number: int,
    name: str,
    step: Step,
    before: torch.Tensor | None,
    idle: Collection[str],
) -> Iterator[str]:
    """What is dead about one parameter at one step."""
    gradient, now = step.gradient[name], step.parameter[name]
    assert now is not None and before is not None
    if name in idle:
        if gradient is not None:
            yield "a gradient, and none was to be"
        return
    size = 0.0 if gradient is None else _largest(gradient)
    if not torch.isfinite(now).all() or not math.isfinite(size):
        yield "not finite"
        return
    if not now.numel():
        return
    allowed = tolerance.of(Quantity(number, "gradient", name)).error
    if size == 0 or size < CLEAR * allowed:
        yield f"the gradient is nothing ({size:.1e}, and {allowed:.1e} is allowed)"
        return
    moved = _largest(now - before)
    allowed_now = tolerance.of(Quantity(number, "parameter", name)).error
    if moved <= allowed_now:
        yield f"the parameter does not move ({moved:.1e}, and {allowed_now:.1e} is allowed)"
    spread = tolerance.oracle.spread(number, name)
    if len(tolerance.oracle.parts) > 1 and spread < CLEAR * allowed:
        yield f"every rank has the same gradient (to {spread:.1e}, and {allowed:.1e} is allowed)"


def _scalar(step: Step) -> float:
    loss = step.loss["loss"]
    assert loss is not None
    return float(loss)


def _largest(tensor: torch.Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0
