"""The training loop: the one thing that the oracle and a distributed run share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from distparity.scenarios import Batch, Scenario
from distparity.strategies import Strategy, Tensors
from distparity.trajectory import Step, Trajectory

if TYPE_CHECKING:
    from distparity.worlds.rank import Place

__all__ = ["Recipe", "dense", "train"]

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

    def losses(self, model: nn.Module, batch: Batch) -> list[torch.Tensor]:
        """The scenario's, under its autocast; but for the oracle, which computes in float64."""
        autocast = self.scenario.autocast
        if autocast is None or self.compute is not self.dtype:
            return self.scenario.losses(model, batch)
        with torch.autocast(batch[0].device.type, getattr(torch, autocast)):
            return self.scenario.losses(model, batch)

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
        # The one that is drawn from. ``torch.manual_seed`` has other devices take note as well, each
        # with a stack of where it was called: a tenth of a small case.
        torch.default_generator.manual_seed(self.seed)

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

    ``order`` permutes the rows of every batch and ``parts`` cuts a rank's rows into so many more
    micro-batches: both leave the mathematics as it is and change the rounding. ``watch`` is called
    with the model and the global batch before each step.
    """
    scenario = recipe.scenario
    strategy = strategy.suit(scenario)
    place.kind.seed(recipe.seed)
    made = _make(recipe, strategy, place)
    model = made.model
    trajectory = Trajectory(_copy({**strategy.parameters(model), **strategy.buffers(model)}))
    for number in range(scenario.steps):
        place.step = number
        batch = recipe.batch(number)
        if order is not None:
            batch = tuple(tensor[list(order)] for tensor in batch)
        scenario.before_step(made.inner, number)
        if watch is not None:
            watch(model, batch)
        step = Step()
        step.loss["loss"] = _backward(recipe, strategy, place, made, batch, parts)
        if scenario.clip_norm is not None:
            strategy.clip(model, scenario.clip_norm, scenario.clip_kind)
        if scenario.clip_value is not None:
            strategy.clip_value(model, scenario.clip_value)
        step.gradient = _copy(strategy.gradients(model))
        if not made.step():
            step.gradient = dict.fromkeys(step.gradient)
        step.parameter = _copy(strategy.parameters(model))
        step.buffer = _copy(strategy.buffers(model))
        trajectory.steps.append(step)
        if scenario.reload_after == number:
            new = _make(recipe, strategy, place)
            strategy.reload((model, made.optimizer), (new.model, new.optimizer), scenario.reload_by)
            made, model = new, new.model
    trajectory.optimizer = _copy(strategy.optimizer_state(model, made.optimizer))
    return trajectory


@dataclass
class _Made:
    """What is trained: the scenario's own model, that model wrapped, and what steps it."""

    inner: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    scaler: Any
    #: Whether the backward has made the step already.
    stepped: bool

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss of which the backward is, from the one that is reported."""
        scaled: torch.Tensor = loss if self.scaler is None else self.scaler.scale(loss)
        return scaled

    def step(self) -> bool:
        """The optimizer's step; False when the scaler skipped it, as if there were no gradients."""
        stepped = True
        if self.scaler is None:
            if not self.stepped:
                self.optimizer.step()
        else:
            before = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            stepped = bool(self.scaler.get_scale() == before)
        self.optimizer.zero_grad()
        if self.schedule is not None:
            self.schedule.step()
        return stepped


def _make(recipe: Recipe, strategy: Strategy, place: Place) -> _Made:
    scenario = recipe.scenario
    inner = recipe.model()
    state = inner.state_dict()
    inner = inner.to("meta" if scenario.deferred and strategy.defers else place.device)
    if scenario.ranks_begin_apart and place.rank != 0:
        with torch.no_grad():
            for tensor in [*inner.parameters(), *inner.buffers()]:
                tensor.add_(place.rank)
    model = strategy.wrap(inner, scenario.units(inner), place)
    if scenario.deferred:
        strategy.fill(model, state, place)
    for method in scenario.methods:
        strategy.enter_by(model, method)
    scenario.after_wrap(inner)
    optimizer = strategy.optimizer(scenario, model)
    if scenario.step_in_backward:
        strategy.step_in_backward(model, optimizer, scenario.optimizer)
    scaler = None if scenario.loss_scale is None else strategy.scaler(place, scenario.loss_scale)
    schedule = scenario.schedule(optimizer)
    return _Made(inner, model, optimizer, schedule, scaler, stepped=scenario.step_in_backward)


def _backward(
    recipe: Recipe, strategy: Strategy, place: Place, made: _Made, batch: Batch, parts: int
) -> torch.Tensor:
    """Leave the gradients of this rank's rows; returns the mean loss over them."""
    scenario = recipe.scenario
    mine = strategy.rows(batch, place)
    rows = len(mine[0])
    cut = scenario.micro_batches * parts
    pieces = list(zip(*(tensor.to(place.device).chunk(cut) for tensor in mine), strict=True))
    loss = torch.zeros((), dtype=recipe.compute, device=place.device)
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        alone = scenario.micro_batches > 1 and scenario.exchange_last_only and not last
        with strategy.no_sync(made.model) if alone else nullcontext():
            weight, turn = len(piece[0]) / rows, (number, len(pieces))
            loss = loss + strategy.learn(
                recipe.losses, made.model, piece, weight, turn, scale=made.scale
            )
    if made.scaler is not None:
        made.scaler.unscale_(made.optimizer)
    return loss.cpu()


def _copy(tensors: Tensors) -> Tensors:
    return {
        name: None if tensor is None else dense(tensor.detach()).to("cpu", copy=True)
        for name, tensor in tensors.items()
    }


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """A sparse gradient in full; any other tensor as it is."""
    return tensor.to_dense() if tensor.is_sparse else tensor
