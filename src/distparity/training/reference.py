"""The runs in one process that a distributed run is held against."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from distparity.scenarios import Batch
from distparity.strategies.single import Reference, Single
from distparity.training.loop import Recipe, dense, train
from distparity.training.trajectory import Step, Trajectory

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

__all__ = ["Oracle", "again", "consult", "reference_runs"]


@dataclass
class Oracle:
    """The float64 trajectory, and what each part of the batch contributed to it.

    ``parts[r].steps[t].gradient`` holds the gradients of part *r* of the batch alone at step *t*,
    before clipping; their mean is the global batch's gradient.
    """

    trajectory: Trajectory
    parts: list[Trajectory] = field(default_factory=list)
    _known: dict[tuple[int, str], tuple[float, float | None, float]] = field(default_factory=dict)

    def magnitude(self, step: int, name: str) -> float:
        """The largest element of the mean over parts of their absolute gradients; 0 without any."""
        return self._sizes(step, name)[0]

    def mean(self, step: int, name: str) -> float | None:
        """The largest element of the mean over parts of their gradients; None without any."""
        return self._sizes(step, name)[1]

    def spread(self, step: int, name: str) -> float:
        """How far the part that is farthest from the mean is from it, in its largest element."""
        return self._sizes(step, name)[2]

    def _sizes(self, step: int, name: str) -> tuple[float, float | None, float]:
        key = (step, name)
        if key not in self._known:
            stack = self._stack(step, name)
            if stack is not None:
                mean = stack.mean(0)
                sizes = _largest(stack.abs().mean(0)), _largest(mean), _largest(stack - mean)
            self._known[key] = (0.0, None, 0.0) if stack is None else sizes
        return self._known[key]

    def _stack(self, step: int, name: str) -> torch.Tensor | None:
        found = [part.steps[step].gradient.get(name) for part in self.parts]
        like = next((gradient for gradient in found if gradient is not None), None)
        if like is None:
            return None
        # A part that does not use a parameter contributes nothing to the mean.
        return torch.stack([torch.zeros_like(like) if one is None else one for one in found])


def consult(recipe: Recipe, context: RankContext, parts: int) -> Oracle:
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
    return Oracle(train(exact, Single(), context, watch=watch), looks)


def reference_runs(
    recipe: Recipe, context: RankContext, parts: int, reduce_dtype: torch.dtype | None = None
) -> list[Trajectory]:
    """The same training in one process in the case's own dtype, several times.

    The runs differ in nothing but the order of sums: the rows in several orders, the batch whole and
    as ``parts`` micro-batches (as many as ranks, so that the sum over ranks is in it). How far they
    fall from the oracle is what rounding alone does to this scenario on this device. Where gradients
    travel between ranks as ``reduce_dtype``, every run has a part for each rank, whose gradient is
    rounded to it as it would be on the way.
    """
    forth = list(range(recipe.rows))
    back = forth[::-1]
    # Every other row first: the parts then hold other rows than the ranks do.
    mixed = forth[::2] + forth[1::2]
    turned = forth[1:] + forth[:1]
    parts = parts if recipe.scenario.divisible else 1
    plans = [(order, n) for order in (forth, back, mixed) for n in sorted({1, parts})]
    if reduce_dtype is not None:
        orders = (forth, back, mixed, mixed[::-1], turned, turned[::-1])
        plans = [(order, parts) for order in orders]
    how = Reference(reduce_dtype, parts)
    return [train(recipe, how, context, order=order, parts=n) for order, n in plans]


def again(
    recipe: Recipe, context: RankContext, parts: int, reduce_dtype: torch.dtype | None = None
) -> Trajectory:
    """The first of the native runs once more."""
    order = list(range(recipe.rows))
    parts = 1 if reduce_dtype is None or not recipe.scenario.divisible else parts
    return train(recipe, Reference(reduce_dtype, parts), context, order=order, parts=parts)


def _largest(tensor: torch.Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0
