"""The training loop: the one thing that the oracle and a distributed run share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from distparity.scenarios import Batch, Scenario
from distparity.strategies import Strategy, Tensors
from distparity.trajectory import Step, Trajectory

if TYPE_CHECKING:
    from distparity.worlds.rank import Place

__all__ = ["Recipe", "train"]

Watch = Callable[[nn.Module, Batch], None]


@dataclass(frozen=True)
class Recipe:
    """What is the same in every run of a case: the numbers that go in.

    ``dtype`` rounds the initial parameters and the data, in every run, the oracle's too, so that
    all runs start from the same numbers; ``compute`` is what a run computes in.
    """

    scenario: Scenario
    dtype: torch.dtype
    compute: torch.dtype
    #: Rows of the global batch.
    rows: int
    seed: int

    def model(self) -> nn.Module:
        with _Float64(self.seed):
            model = self.scenario.model()
        return model.to(self.dtype).to(self.compute)

    def batch(self, step: int) -> Batch:
        with _Float64(self.seed + 1 + step):
            batch = self.scenario.batch(self.rows)
        return tuple(
            tensor.to(self.dtype).to(self.compute) if tensor.is_floating_point() else tensor
            for tensor in batch
        )


class _Float64:
    """Draw random numbers as float64 from the CPU's generator, whatever the case's dtype is."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.dtype)


def train(
    recipe: Recipe,
    strategy: Strategy,
    place: Place,
    *,
    order: Sequence[int] | None = None,
    parts: int = 1,
    watch: Watch | None = None,
) -> Trajectory:
    """Train, and record every step.

    ``order`` permutes the rows of every batch and ``parts`` cuts a rank's rows into so many
    micro-batches whose gradients accumulate: both leave the mathematics as it is and change the
    rounding. ``watch`` is called with the model and the global batch before each step.
    """
    scenario = recipe.scenario
    place.kind.seed(recipe.seed)
    model = recipe.model().to(place.device)
    model = strategy.wrap(model, scenario.units(model), place)
    optimizer = scenario.optimizer(model.parameters())
    index, count = strategy.share(place)
    trajectory = Trajectory(_copy(strategy.parameters(model)))
    for number in range(scenario.steps):
        batch = recipe.batch(number)
        if order is not None:
            batch = tuple(tensor[list(order)] for tensor in batch)
        if watch is not None:
            watch(model, batch)
        rows = recipe.rows // count
        mine = tuple(t[index * rows : (index + 1) * rows].to(place.device) for t in batch)
        loss = torch.zeros((), dtype=recipe.compute, device=place.device)
        for part in zip(*(tensor.chunk(parts) for tensor in mine), strict=True):
            share = scenario.loss(model, part) * (len(part[0]) / rows)
            share.backward()
            loss = loss + share.detach()
        step = Step(_copy({"loss": loss}), _copy(strategy.gradients(model)))
        optimizer.step()
        optimizer.zero_grad()
        step.parameter = _copy(strategy.parameters(model))
        step.buffer = _copy(strategy.buffers(model))
        trajectory.steps.append(step)
    return trajectory


def _copy(tensors: Tensors) -> Tensors:
    return {
        name: None if tensor is None else tensor.detach().to("cpu", copy=True)
        for name, tensor in tensors.items()
    }
