"""The runs in one process that a distributed run is held against."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from distparity.scenarios import Batch, Scenario
from distparity.strategies.single import Single
from distparity.training import Recipe, dense, train
from distparity.trajectory import Step, Trajectory

if TYPE_CHECKING:
    from distparity.worlds.rank import Place

__all__ = ["Oracle", "consult", "natives"]


@dataclass
class Oracle:
    """The float64 trajectory, and what each part of the batch contributed to it.

    ``parts[r].steps[t].gradient`` holds the gradients of part *r* of the batch alone at step *t*,
    before clipping; their mean is the global batch's gradient.
    """

    trajectory: Trajectory
    parts: list[Trajectory] = field(default_factory=list)

    def magnitude(self, step: int, name: str) -> float:
        """The largest element of the mean over parts of their absolute gradients."""
        found = self._stack(step, name)
        return 0.0 if found is None else _largest(found.abs().mean(0))

    def spread(self, step: int, name: str) -> float:
        """How far the part that is farthest from the mean is from it, in its largest element."""
        found = self._stack(step, name)
        return 0.0 if found is None else _largest(found - found.mean(0))

    def _stack(self, step: int, name: str) -> torch.Tensor | None:
        found = [part.steps[step].gradient.get(name) for part in self.parts]
        kept = [gradient for gradient in found if gradient is not None]
        return torch.stack(kept) if kept else None


def consult(recipe: Recipe, place: Place, parts: int) -> Oracle:
    """Train in float64 on the whole global batch, and look at its ``parts`` one by one."""
    looks = [Trajectory() for _ in range(parts)]

    def watch(model: nn.Module, batch: Batch) -> None:
        for look, part in zip(
            looks, zip(*(t.chunk(parts) for t in batch), strict=True), strict=True
        ):
            # A copy, so that looking leaves no trace (buffers, accumulated gradients).
            twin = copy.deepcopy(model)
            twin.zero_grad()
            recipe.scenario.loss(twin, part).backward()
            gradients = {
                name: None if parameter.grad is None else dense(parameter.grad)
                for name, parameter in twin.named_parameters()
            }
            look.steps.append(Step(gradient=gradients))

    exact = replace(recipe, compute=torch.float64)
    return Oracle(train(exact, Single(), place, watch=watch), looks)


def natives(recipe: Recipe, place: Place, parts: int) -> list[Trajectory]:
    """The same training in one process in the case's own dtype, several times.

    The runs differ in nothing but the order of sums: the rows in order and reversed, the batch
    whole and as ``parts`` micro-batches (as many as ranks, so that the sum over ranks is in it). How
    far they fall from the oracle is what rounding alone does to this scenario on this device.
    """
    forth = list(range(recipe.rows))
    back = forth[::-1]
    # Every other row first: the parts then hold other rows than the ranks do.
    mixed = forth[::2] + forth[1::2]
    plans = [(forth, 1), (forth, parts), (back, parts), (back, 1), (mixed, 1), (mixed, parts)]
    return [train(recipe, Single(), place, order=order, parts=n) for order, n in plans]


def check_alive(oracle: Oracle, scenario: Scenario, dtype: torch.dtype) -> list[str]:
    """What makes the scenario worthless as evidence; empty when nothing does.

    A comparison of nothing proves nothing, and a comparison in which every rank has the same
    gradient does not see whether gradients were exchanged.
    """
    rounding = 64 * torch.finfo(dtype).eps
    found: list[str] = []
    before = oracle.trajectory.initial
    losses = []
    for number, step in enumerate(oracle.trajectory.steps):
        losses.append(_scalar(step))
        idle = scenario.idle(number)
        found += [
            f"step {number}: there is no parameter {name!r}" for name in idle if name not in before
        ]
        for name in step.gradient:
            fault = _fault(oracle, number, name, before[name], rounding, idle=name in idle)
            if fault is not None:
                found.append(f"step {number}, {name}: {fault}")
        before = step.parameter
    if any(loss == 0 for loss in losses) or len(set(losses)) < min(2, len(losses)):
        found.append(f"the loss is constant or zero: {losses}")
    return found


def _fault(
    oracle: Oracle,
    number: int,
    name: str,
    then: torch.Tensor | None,
    rounding: float,
    *,
    idle: bool,
) -> str | None:
    """What makes one parameter's gradient at one step worthless; None when nothing does."""
    step = oracle.trajectory.steps[number]
    gradient, now = step.gradient[name], step.parameter[name]
    assert now is not None and then is not None
    if gradient is None or idle:
        if gradient is None and idle:
            return None
        return (
            "the gradient is nothing (None)"
            if gradient is None
            else "a gradient, and none was to be"
        )
    if not now.numel():
        return None
    size = _largest(gradient)
    if not torch.isfinite(now).all() or not math.isfinite(size):
        return "not finite"
    if size <= rounding * max(1.0, _largest(then)):
        return f"the gradient is nothing ({size:.1e})"
    if _largest(now - then) <= rounding * _largest(then):
        return "the parameter does not move"
    if len(oracle.parts) > 1 and oracle.spread(number, name) <= 0.01 * size:
        return "every rank has the same gradient"
    return None


def _scalar(step: Step) -> float:
    loss = step.loss["loss"]
    assert loss is not None
    return float(loss)


def _largest(tensor: torch.Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0
