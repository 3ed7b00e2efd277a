"""The training loop, which the oracle, the reference runs and the distributed run share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from torch import nn

from distparity.core.participation import Participation
from distparity.devices import delays
from distparity.scenarios import Batch, Scenario
from distparity.strategies import Pending, Strategy, Tensors
from distparity.torch_support.random_alike import RandomAlike
from distparity.training.trajectory import Step, Trajectory

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

__all__ = ["Recipe", "Watch", "dense", "train"]

Watch = Callable[[nn.Module, Batch], None]


@dataclass(frozen=True)
class Recipe:
    """The inputs that are the same in every run of a case."""

    scenario: Scenario
    #: The initial parameters and the data are rounded to this dtype in every run, including the
    #: oracle, so that all runs start from the same numbers.
    dtype: torch.dtype
    #: The dtype in which this run stores and computes: ``dtype``, or float64 in the oracle.
    compute: torch.dtype
    #: Rows of the global batch.
    rows: int
    seed: int

    def model(self) -> nn.Module:
        """The scenario's model on the CPU, equal in every process for the same seed."""
        with _Drawing(self.seed):
            model = self.scenario.model()
        state = self.scenario.state()
        if state is not None:
            model.load_state_dict(state)
        _cast(model, self.dtype)
        for name, dtype in self.scenario.other_dtypes.items():
            _cast(model.get_submodule(name), getattr(torch, dtype))
        return model if self.compute is self.dtype else _cast(model, self.compute)

    def losses(self, model: nn.Module, batch: Batch) -> list[torch.Tensor]:
        """The scenario's losses, with its autocast; the oracle uses no autocast.

        Returns scalars that require grad, of dtype ``compute``.
        """
        autocast = self.scenario.autocast
        if autocast is None or self.compute is not self.dtype:
            return self.scenario.losses(model, batch)
        with torch.autocast(batch[0].device.type, getattr(torch, autocast)):
            return self.scenario.losses(model, batch)

    def batch(self, step: int) -> Batch:
        """The global batch of a step: tensors ``[rows, ...]`` on the CPU.

        Floating-point tensors have the dtype ``compute``, others the scenario's own.
        """
        with _Drawing(self.seed + 1 + step):
            batch = self.scenario.batch(self.rows)
        return tuple(
            tensor.to(self.dtype).to(self.compute) if tensor.is_floating_point() else tensor
            for tensor in batch
        )


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast floating-point parameters and buffers to ``dtype``, and complex ones to its complex dtype."""

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex():
            # ``Module.to`` would drop the imaginary parts.
            return tensor.to(dtype.to_complex())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    model._apply(cast)  # noqa: SLF001  ``Module.to`` itself uses it
    return model


class _Drawing:
    """Within it, random numbers are drawn in one dtype from the CPU's generator, in every run alike."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float64) -> None:
        self.seed = seed
        self.wanted = dtype

    def __enter__(self) -> None:
        self.dtype = torch.get_default_dtype()
        torch.set_default_dtype(self.wanted)
        # Seed only the generator that is used. ``torch.manual_seed`` also notifies other devices, and
        # each records the stack of the call: that takes a tenth of a small case.
        torch.default_generator.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.dtype)


def train(
    recipe: Recipe,
    strategy: Strategy,
    context: RankContext,
    *,
    order: Sequence[int] | None = None,
    parts: int = 1,
    watch: Watch | None = None,
    participation: Participation | None = None,
    folder: str | None = None,
) -> Trajectory:
    """Train on ``context.device``, and record every step on the CPU.

    ``order`` permutes the rows of every batch, and ``parts`` multiplies the number of micro-batches:
    both change the rounding but not the mathematics. ``watch`` is called with the wrapped model and
    the global batch before each step. ``participation`` says which steps this rank makes; None for
    all. If the steps are split over two worlds, ``folder`` is for the checkpoint between them.

    Raises whatever the scenario, the strategy or torch raises.
    """
    strategy = strategy.suit(recipe.scenario)
    total = recipe.scenario.steps
    run = _Run(recipe, strategy, context, order, parts, watch)
    try:
        return run.train(participation or Participation(0, range(total), total), folder)
    finally:
        run.release()


class _Run:
    """A training in progress in one process."""

    def __init__(
        self,
        recipe: Recipe,
        strategy: Strategy,
        context: RankContext,
        order: Sequence[int] | None,
        parts: int,
        watch: Watch | None,
    ) -> None:
        self.recipe, self.scenario = recipe, recipe.scenario
        self.strategy, self.context = strategy, context
        self.order, self.parts, self.watch = order, parts, watch
        #: Tensors that ranks will gather after training: where they belong, their kind, and how.
        self.pending: list[tuple[Step | Trajectory, str, Pending]] = []
        #: Steps that the scaler skipped: their gradients reached no optimizer.
        self.skipped: list[Step] = []
        #: Every model of this run, and what wraps it.
        self.models: list[nn.Module] = []
        #: The tensors that models had before they were wrapped, by id.
        self.own: WeakValueDictionary[int, torch.Tensor] = WeakValueDictionary()

    def train(self, participation: Participation, folder: str | None) -> Trajectory:
        self.context.kind.seed(self.recipe.seed)
        self.made = self._make()
        found = Trajectory(steps=[Step() for _ in range(participation.total)])
        (rows,) = self.strategy.rows((torch.arange(self.recipe.rows, device="cpu"),), self.context)
        found.rows = rows.tolist()
        if participation.starts:
            # Buffers first: reading parameters may cast buffers.
            self._keep(found, "initial", self.strategy.buffers(self.made.model))
            self._keep(found, "initial", self.strategy.parameters(self.made.model))
        else:
            assert folder is not None
            self._load(folder)
        with self._uneven():
            for number in participation.steps:
                found.steps[number] = self._step(number)
                if self._reloads_after(number) and participation.ends:
                    self._reload()
        for kind in participation.in_the_end:
            read = self.strategy.parameters if kind == "parameter" else self.strategy.buffers
            self._keep(found.steps[-1], kind, read(self.made.model))
        state = self._copy(self.strategy.optimizer_state(self.made.model, self.made.optimizer))
        if participation.ends:
            found.optimizer = state
        elif folder is not None:
            self._save(folder)
        for where, kind, tensors in self.pending:
            getattr(where, kind).update(self._copy(tensors))
        for step in self.skipped:
            step.gradient = dict.fromkeys(step.gradient)
        return found

    def release(self) -> None:
        """Take from the models what a wrapper has put there, so that its memory is free for the next case.

        A wrapper's parameter may refer to its module, and the module to a view of that parameter. The
        view refers to the parameter in C++, where Python's garbage collector sees no cycle: a model
        under FSDP1 would never be freed. What the scenario made stays: it may belong to more than one
        training.
        """
        for model in self.models:
            for held, name, tensor in _tensors(model):
                if self.own.get(id(tensor)) is not tensor:
                    del held[name]

    def _step(self, number: int) -> Step:
        scenario, strategy, made = self.scenario, self.strategy, self.made
        self.context.step = number
        batch = self._batch(number)
        with self._whole():
            scenario.before_step(made.inner, number)
        if self.watch is not None:
            self.watch(made.model, batch)
        step = Step()
        step.loss["loss"] = _backward(
            self.recipe, strategy, self.context, made, batch, self.parts, self._factor(batch)
        )
        if scenario.clip_norm is not None:
            norm = strategy.clip(made.model, scenario.clip_norm, scenario.clip_kind)
            if scenario.compares_norm:
                step.norm["norm"] = _whole(norm)
        if scenario.clip_value is not None:
            strategy.clip_value(made.model, scenario.clip_value)
        self._keep(step, "gradient", strategy.gradients(made.model))
        delays.pause()
        if not made.step():
            self.skipped.append(step)
        self._keep(step, "parameter", strategy.parameters(made.model))
        self._keep(step, "buffer", strategy.buffers(made.model))
        for state in strategy.state(made.model, made.optimizer):
            self._keep(step, "optimizer", state)
        return step

    def _keep(self, where: Step | Trajectory, kind: str, tensors: Tensors | Pending) -> None:
        """Record tensors now, or after training if ranks have yet to gather them."""
        if isinstance(tensors, Pending):
            self.pending.append((where, kind, tensors))
        else:
            getattr(where, kind).update(self._copy(tensors))

    def _copy(self, tensors: Tensors | Pending) -> Tensors:
        """Copies on the CPU, by the names that the tensors have in the reference runs."""
        with delays.none():
            return {
                self.scenario.original_name(name): None
                if tensor is None
                else dense(tensor.detach()).to("cpu", copy=True)
                for name, tensor in tensors.items()
            }

    def _batch(self, number: int) -> Batch:
        """The global batch of a step, with its rows in this run's order."""
        batch = self.recipe.batch(number)
        after = self.scenario.runs_out_after
        # In a world, the ranks whose rows are missing do not get here.
        if self.strategy.alone and after is not None and number > after:
            batch = tuple(tensor[self.recipe.rows // 2 :] for tensor in batch)
        if self.order is None:
            return batch
        rows = [row for row in self.order if row < len(batch[0])]
        return tuple(tensor[rows] for tensor in batch)

    def _factor(self, batch: Batch) -> float:
        """The factor that a wrapper's divisor puts on the gradient, which one process must apply too."""
        if not self.strategy.alone:
            return 1.0
        present = len(batch[0]) / self.recipe.rows if self.scenario.missing_rows_count else 1.0
        return self.scenario.gradient_factor * present

    def _uneven(self) -> AbstractContextManager[None]:
        if self.scenario.runs_out_after is None:
            return nullcontext()
        return self.strategy.uneven(self.made.model, self.scenario.missing_rows_count)

    def _whole(self) -> AbstractContextManager[None]:
        wanted = self.scenario.whole_parameters
        if wanted is None:
            return nullcontext()
        return self.strategy.whole(self.made.model, write=wanted == "write")

    def _reloads_after(self, number: int) -> bool:
        """Whether this run saves and loads after a step.

        A reference run does not: saving and loading is what the scenario checks.
        """
        return self.scenario.reload_after == number and not self.strategy.alone

    def _save(self, folder: str) -> None:
        """Save everything for another world."""
        self.strategy.save(self.made.model, self.made.optimizer, folder)
        if self.context.rank == 0:
            for part in self.made.plain:
                torch.save(getattr(self.made, part).state_dict(), Path(folder, part))

    def _load(self, folder: str) -> None:
        """Load what another world has saved."""
        self.strategy.load(self.made.model, self.made.optimizer, folder)
        for part in self.made.plain:
            # A world of this run has written it, so it may be read with all that it has.
            state = torch.load(Path(folder, part), weights_only=False)
            getattr(self.made, part).load_state_dict(state)

    def _reload(self) -> None:
        """Continue with a new model that loads the state of the old one."""
        new = self._make()
        delays.pause()
        old = (self.made.model, self.made.optimizer)
        self.strategy.reload(old, (new.model, new.optimizer), self.scenario.reload_by)
        for part in new.plain:
            getattr(new, part).load_state_dict(getattr(self.made, part).state_dict())
        self.made = new

    def _make(self) -> _Made:
        recipe, scenario = self.recipe, self.scenario
        strategy, context = self.strategy, self.context
        inner = recipe.model()
        self.models.append(inner)
        state = inner.state_dict()
        inner = inner.to("meta" if scenario.deferred and strategy.defers else context.device)
        self.own.update({id(tensor): tensor for _, _, tensor in _tensors(inner)})
        if scenario.ranks_begin_apart and context.rank != 0:
            with torch.no_grad():
                for tensor in [*inner.parameters(), *inner.buffers()]:
                    tensor.add_(context.rank)
        if not strategy.alone:
            scenario.before_wrap(inner)
        model = strategy.wrap(inner, scenario.units(inner), context)
        self.models.append(model)
        if scenario.deferred:
            strategy.fill(model, state, context)
        for method in scenario.methods:
            strategy.enter_by(model, method)
        if scenario.compiles_whole and not strategy.alone:
            # In place, so that names do not change. "aot_eager" traces the model but compiles no kernels:
            # the tracing is what is checked.
            model.compile(backend="aot_eager")
        # What it draws must be what the oracle draws, and what it leaves of the generator nobody's business.
        alike = nullcontext() if recipe.compute is recipe.dtype else RandomAlike(recipe.dtype)
        with torch.random.fork_rng(devices=[]), _Drawing(recipe.seed, recipe.dtype), alike:
            scenario.after_wrap(inner)
        optimizer = strategy.optimizer(scenario, model)
        if scenario.step_in_backward:
            strategy.step_in_backward(model, optimizer, scenario.optimizer)
        scaler = (
            None if scenario.loss_scale is None else strategy.scaler(context, scenario.loss_scale)
        )
        schedule = scenario.schedule(optimizer)
        return _Made(inner, model, optimizer, schedule, scaler, stepped=scenario.step_in_backward)


def _tensors(model: nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    """The tensors that modules refer to: where each one is, its name there, and itself."""
    for module in model.modules():
        own = vars(module)
        for held in (own, own["_parameters"], own["_buffers"]):
            for name, value in list(held.items()):
                if isinstance(value, torch.Tensor):
                    yield held, name, value


@dataclass
class _Made:
    """The objects of a training: the scenario's model, the wrapped model, the optimizer and so on."""

    inner: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    scaler: Any
    #: Whether the backward pass already makes the optimizer's step.
    stepped: bool

    @property
    def plain(self) -> list[str]:
        """What has a state dict of its own, in plain Python."""
        return [part for part in ("schedule", "scaler") if getattr(self, part) is not None]

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to call ``backward`` on, from the unscaled one."""
        scaled: torch.Tensor = loss if self.scaler is None else self.scaler.scale(loss)
        return scaled

    def step(self) -> bool:
        """Make the optimizer's step; returns False if the scaler skipped it."""
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


def _backward(
    recipe: Recipe,
    strategy: Strategy,
    context: RankContext,
    made: _Made,
    batch: Batch,
    parts: int,
    factor: float,
) -> torch.Tensor:
    """Compute ``factor`` times the gradients of this rank's rows; returns their mean loss.

    The loss is a scalar on the CPU.
    """
    scenario = recipe.scenario

    def scale(loss: torch.Tensor) -> torch.Tensor:
        return made.scale(loss if factor == 1 else loss * factor)

    mine = strategy.rows(batch, context)
    rows = len(mine[0])
    cut = scenario.micro_batches * parts
    pieces = list(zip(*(tensor.to(context.device).chunk(cut) for tensor in mine), strict=True))
    loss = torch.zeros((), dtype=recipe.compute, device=context.device)
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        alone = scenario.micro_batches > 1 and scenario.exchange_last_only and not last
        delays.pause()
        with strategy.no_sync(made.model) if alone else nullcontext():
            weight, turn = len(piece[0]) / rows, (number, len(pieces))
            loss = loss + strategy.learn(
                recipe.losses, made.model, piece, weight, turn, scale=scale
            )
    if scenario.left_alone:
        strategy.average(made.model, scenario.left_alone)
    if made.scaler is not None:
        made.scaler.unscale_(made.optimizer)
    return loss.cpu()


def _whole(norm: Any) -> torch.Tensor:
    """A norm that clipping returned, as a scalar on the CPU; a collective call if it is a DTensor."""
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    found: torch.Tensor = norm.detach().to("cpu", copy=True)
    return found


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """A sparse tensor as a dense one, a complex one as a real one of shape ``[*shape, 2]``.

    Any other tensor is returned unchanged.
    """
    tensor = tensor.to_dense() if tensor.is_sparse else tensor
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
