"""The runs in one process that a distributed run is compared with."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from distparity.scenarios import Batch
from distparity.strategies.single import Reference, Single
from distparity.training.loop import Recipe, Watch, dense, train
from distparity.training.trajectory import Step, Tensors, Trajectory

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

__all__ = ["LEAST_ROWS", "SAMPLES", "Oracle", "again", "consult", "plans", "reference_runs", "twin"]


#: The most bytes of stacked gradients that an oracle keeps; what is more is stacked again.
KEPT = 64 << 20

#: Reference runs with permuted rows, besides the one with the rows in order. docs/verdict.md derives
#: the number.
SAMPLES = 8

#: The fewest rows that have more than :data:`SAMPLES` orders.
LEAST_ROWS = 4


@dataclass
class Oracle:
    """The scenario trained in one process, on the CPU, in float64, on the global batch."""

    #: The run itself.
    trajectory: Trajectory
    #: One trajectory per part. Part *r* is the *r*-th chunk of the global batch's rows; there are as
    #: many parts as the largest world has ranks. ``parts[r].steps[t]`` has only ``loss`` (a float64
    #: scalar) and ``gradient`` (float64, in the parameters' shapes, before clipping): those of part
    #: *r* alone, at the oracle's parameters before step *t*. If the loss is a mean over rows, the mean
    #: of the gradients over the parts is the global batch's gradient before clipping.
    parts: list[Trajectory] = field(default_factory=list)
    #: What single rows contribute: ``rows.steps[t].gradient`` has, in the parameters' shapes, the mean
    #: over all rows of the absolute gradient of one row alone. Empty if rows cannot be trained alone.
    rows: Trajectory = field(default_factory=Trajectory)
    _known: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict)
    _room: int = KEPT

    def gradients(self, step: int, name: str) -> torch.Tensor | None:
        """The parts' gradients of one parameter: float64, ``[parts, *shape]``; None if no part has one.

        A part without a gradient has zeros. Raises ``IndexError`` if there is no such step.
        """
        key = (step, name)
        if key in self._known:
            return self._known[key]
        found = [part.steps[step].gradient.get(name) for part in self.parts]
        like = next((gradient for gradient in found if gradient is not None), None)
        if like is None:
            return None
        # A part that does not use a parameter contributes nothing to the mean.
        stack = torch.stack([torch.zeros_like(like) if one is None else one for one in found])
        size = stack.numel() * stack.element_size()
        if size <= self._room:
            self._room -= size
            self._known[key] = stack
        return stack

    def losses(self, step: int) -> torch.Tensor | None:
        """The parts' losses: float64, ``[parts]``; None if their mean is not the global batch's loss.

        That happens if the loss is not a mean over rows, for example with batch normalisation.
        Raises ``IndexError`` if there is no such step.
        """
        found = [part.steps[step].loss.get("loss") for part in self.parts]
        whole = self.trajectory.steps[step].loss.get("loss")
        if whole is None or not found or any(loss is None for loss in found):
            return None
        losses = torch.stack([loss.double() for loss in found if loss is not None])
        far = abs(float(losses.mean() - whole))
        return losses if far <= 1e-9 * float(losses.abs().mean()) else None


def consult(recipe: Recipe, context: RankContext, parts: int) -> Oracle:
    """Train the oracle: in float64 on the global batch, and record its ``parts`` and its rows.

    ``context`` is that of a single process on the CPU.
    """
    looks, rows = [Trajectory() for _ in range(parts)], Trajectory()

    def watch(model: nn.Module, batch: Batch) -> None:
        # A forward may draw random numbers, and the training must draw the same without these.
        with torch.random.fork_rng(devices=[]):
            for look, part in zip(looks, _cut(batch, parts), strict=True):
                loss, gradients = _alone(recipe, copy.deepcopy(model), part)
                look.steps.append(Step({"loss": loss}, gradients))
            if recipe.scenario.divisible:
                rows.steps.append(Step(gradient=_sizes(recipe, model, batch)))

    return Oracle(twin(recipe, context, watch), looks, rows)


def twin(recipe: Recipe, context: RankContext, watch: Watch | None = None) -> Trajectory:
    """Train as the oracle is trained: the result must be equal bit for bit."""
    exact = replace(recipe, compute=torch.float64)
    return train(exact, Single(), context, watch=watch)


def _cut(batch: Batch, parts: int) -> Iterator[Batch]:
    yield from zip(*(tensor.chunk(parts) for tensor in batch), strict=True)


def _alone(recipe: Recipe, model: nn.Module, part: Batch) -> tuple[torch.Tensor, Tensors]:
    """The loss and the gradients of some rows alone. ``model`` is a copy: nothing else sees a trace."""
    model.zero_grad()
    loss = recipe.scenario.loss(model, part)
    loss.backward()
    gradients: Tensors = {
        name: None if parameter.grad is None else dense(parameter.grad)
        for name, parameter in model.named_parameters()
    }
    return loss.detach(), gradients


def _sizes(recipe: Recipe, model: nn.Module, batch: Batch) -> Tensors:
    """For each parameter, the mean over rows of the absolute gradient of one row alone.

    Empty if the scenario's loss takes no single row.
    """
    copied, found = copy.deepcopy(model), dict[str, torch.Tensor]()
    for row in _cut(batch, len(batch[0])):
        try:
            gradients = _alone(recipe, copied, row)[1]
        except (RuntimeError, ValueError, IndexError):
            return {}
        for name, gradient in gradients.items():
            if gradient is not None:
                size = gradient.abs() / len(batch[0])
                found[name] = found[name] + size if name in found else size
    return {**found}


def reference_runs(
    recipe: Recipe, context: RankContext, parts: int, reduce_dtype: torch.dtype | None = None
) -> Iterator[Trajectory]:
    """Train ``1 + SAMPLES`` times in one process, on the case's device, in the case's own dtype.

    The runs differ only in the order of sums. The first takes the rows in order, as one batch; each of
    the :data:`SAMPLES` others takes another permutation of the rows, alternately as ``parts``
    micro-batches (one per rank, which includes the sum over ranks) and as one batch. Their distance
    from the oracle shows what rounding alone does to this scenario on this device.
    If ranks exchange gradients as ``reduce_dtype``, every run has one micro-batch per rank, and
    rounds its gradient to that dtype, as the exchange would.
    ``docs/verdict.md`` derives the method.
    """
    how = Reference(reduce_dtype, parts if recipe.scenario.divisible else 1)
    for order, n in plans(recipe, parts, reduce_dtype):
        yield train(recipe, how, context, order=order, parts=n)


def plans(
    recipe: Recipe, parts: int, reduce_dtype: torch.dtype | None = None
) -> list[tuple[list[int], int]]:
    """For each reference run, the order of its rows and its number of micro-batches.

    The order is a permutation of ``range(recipe.rows)``. Raises ``ValueError`` if there are fewer than
    :data:`LEAST_ROWS` rows.
    """
    if recipe.rows < LEAST_ROWS:
        raise ValueError(f"{recipe.rows} rows; reference runs need at least {LEAST_ROWS}")
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
    """Repeat the first reference run: on a deterministic device, the result is equal bit for bit."""
    order, n = plans(recipe, parts, reduce_dtype)[0]
    how = Reference(reduce_dtype, parts if recipe.scenario.divisible else 1)
    return train(recipe, how, context, order=order, parts=n)
