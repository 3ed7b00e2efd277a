"""The runs in one process that a distributed run is compared with."""

from __future__ import annotations

import copy
import random
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

__all__ = ["SAMPLES", "Oracle", "again", "consult", "plans", "reference_runs"]


#: Reference runs besides the one that takes the rows in their order. docs/verdict.md derives how many.
SAMPLES = 8


@dataclass
class Oracle:
    """The float64 trajectory, and what each part of the batch contributed to it.

    ``parts[r].steps[t]`` holds what part *r* of the batch alone gives at the oracle's parameters at
    step *t*: ``loss``, a scalar, and ``gradient``, float64 tensors of the parameters' shapes, before
    clipping. The mean over parts of the gradients is the global batch's gradient.
    """

    trajectory: Trajectory
    parts: list[Trajectory] = field(default_factory=list)
    _known: dict[tuple[int, str], torch.Tensor | None] = field(default_factory=dict)

    def gradients(self, step: int, name: str) -> torch.Tensor | None:
        """The parts' gradients of one parameter: ``[parts, *shape]``; None where no part has one."""
        key = (step, name)
        if key not in self._known:
            found = [part.steps[step].gradient.get(name) for part in self.parts]
            like = next((gradient for gradient in found if gradient is not None), None)
            # A part that does not use a parameter contributes nothing to the mean.
            self._known[key] = (
                None
                if like is None
                else torch.stack([torch.zeros_like(like) if one is None else one for one in found])
            )
        return self._known[key]

    def losses(self, step: int) -> torch.Tensor | None:
        """The parts' losses, ``[parts]``; None where their mean is not the global batch's loss.

        That is so where a loss is not a mean over rows: batch normalisation over all of them, say.
        """
        found = [part.steps[step].loss.get("loss") for part in self.parts]
        whole = self.trajectory.steps[step].loss.get("loss")
        if whole is None or not found or any(loss is None for loss in found):
            return None
        losses = torch.stack([loss.double() for loss in found if loss is not None])
        far = abs(float(losses.mean() - whole))
        return losses if far <= 1e-9 * float(losses.abs().mean()) else None


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
            loss = recipe.scenario.loss(twin, part)
            loss.backward()
            gradients = {
                name: None if parameter.grad is None else dense(parameter.grad)
                for name, parameter in twin.named_parameters()
            }
            look.steps.append(Step({"loss": loss.detach()}, gradients))

    exact = replace(recipe, compute=torch.float64)
    return Oracle(train(exact, Single(), context, watch=watch), looks)


def reference_runs(
    recipe: Recipe, context: RankContext, parts: int, reduce_dtype: torch.dtype | None = None
) -> list[Trajectory]:
    """The same training in one process in the case's own dtype, several times.

    The runs differ in nothing but the order of sums. The first takes the rows in their order, the
    batch whole; the :data:`SAMPLES` others are distinct permutations of the rows, by turns as
    ``parts`` micro-batches (as many as ranks, so that the sum over ranks is in it) and whole. How far
    they are from the oracle is what rounding alone does to this scenario on this device. Where
    gradients travel between ranks as ``reduce_dtype``, every run has a part for each rank, whose
    gradient is rounded to it as it would be on the way.
    """
    how = Reference(reduce_dtype, parts if recipe.scenario.divisible else 1)
    return [
        train(recipe, how, context, order=order, parts=n)
        for order, n in plans(recipe, parts, reduce_dtype)
    ]


def plans(
    recipe: Recipe, parts: int, reduce_dtype: torch.dtype | None = None
) -> list[tuple[list[int], int]]:
    """The order of rows and the number of micro-batches of each reference run."""
    draw = random.Random(recipe.rows)  # noqa: S311  nothing secret about it
    orders = [list(range(recipe.rows))]
    while len(orders) <= SAMPLES:
        order = draw.sample(orders[0], recipe.rows)
        if order not in orders:
            orders.append(order)
    cut = parts if recipe.scenario.divisible else 1
    whole = cut if reduce_dtype is not None else 1
    return [(order, cut if number % 2 else whole) for number, order in enumerate(orders)]


def again(
    recipe: Recipe, context: RankContext, parts: int, reduce_dtype: torch.dtype | None = None
) -> Trajectory:
    """The first of the reference runs once more."""
    order, n = plans(recipe, parts, reduce_dtype)[0]
    how = Reference(reduce_dtype, parts if recipe.scenario.divisible else 1)
    return train(recipe, how, context, order=order, parts=n)
