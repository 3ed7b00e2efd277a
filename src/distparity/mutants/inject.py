"""Inject a mutant into a strategy and into the collectives that it calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distparity.mutants.base import Mutant
from distparity.strategies.base import Pending, Strategy, Tensors

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch, Scenario

__all__ = ["mutate"]


@contextmanager
def mutate(strategy: Strategy, kind: type[Mutant], context: RankContext) -> Iterator[Strategy]:
    """Within it, the strategy with the fault injected."""
    mutant = kind(context, sharded=not strategy.replicates)
    mutated = _Mutated(strategy, mutant)
    with _collectives(mutated):
        yield mutated


class _Mutated(Strategy):
    """A strategy, with a mutant between it and its callers."""

    def __init__(self, right: Strategy, mutant: Mutant) -> None:
        self.right = right
        self.defers = right.defers
        self.mutant = mutant
        #: Reading state back also uses collectives, and those must stay correct.
        self.reading = False
        #: All-reduces have many uses; those during a backward exchange gradients.
        self.learning = False
        self.hooked = self.direct = True

    def suit(self, scenario: Scenario) -> Strategy:
        self.right = self.right.suit(scenario)
        # A hook divides by the number of all ranks, so it cannot leave out those that have run out.
        self.hooked = scenario.missing_rows_count
        return self

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        self.mutant.wrap(model, units)
        with _hooks_kept() as hooks:
            wrapped = self.right.wrap(model, units, context)
        reducers = self.right.reducers(wrapped)
        # With hooks, all-reduces do not exchange gradients: the hooks do.
        self.direct = not reducers
        for reducer in reducers if self.hooked else ():
            group = getattr(reducer, "process_group", None)
            reducer.register_comm_hook(None, self._hook(group, *hooks))
        return wrapped

    def _hook(self, group: Any, *own: tuple[Any, Callable[..., Any]]) -> Callable[[Any, Any], Any]:
        """A communication hook that averages with the fault; ``own`` is the strategy's own hook."""

        # Unannotated: torch compares annotations with its own classes.
        def hook(_, bucket):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            size = dist.get_world_size(group)
            parts = [torch.empty_like(bucket.buffer()) for _ in range(size)]
            dist.all_gather(parts, bucket.buffer(), group=group)
            self.mutant.rank = dist.get_rank(group)
            average = torch.stack(parts).sum(0) / len(parts)
            wrong = self.mutant.reduce(parts) / len(parts)
            # The strategy's own hook runs too, and the fault is added to its result.
            for state, right in own:
                wrong = right(state, bucket).wait() + (wrong - average)
            future: Any = torch.futures.Future()
            future.set_result(wrong)
            return future

        return hook

    def parameters(self, model: nn.Module) -> Tensors:
        return self._read(self.right.parameters, model)

    def gradients(self, model: nn.Module) -> Tensors:
        return self._read(self.right.gradients, model)

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        return self._read(self.right.optimizer_state, model, optimizer)

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensors]:
        with self._unbroken():
            return [dict(one) for one in self.right.state(model, optimizer)]

    def buffers(self, model: nn.Module) -> Tensors:
        return self.right.buffers(model)

    def _read(self, reader: Callable[..., Tensors | Pending], *words: Any) -> Tensors:
        with self._unbroken():
            # Read at once, even if it could be gathered later: it must be read by correct collectives.
            return dict(reader(*words))

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        before, self.reading = self.reading, True
        try:
            yield
        finally:
            self.reading = before

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        if self.mutant.no_sync():
            with self.right.no_sync(model):
                yield
        else:
            yield

    def clip(self, model: nn.Module, norm: float, kind: float = 2.0) -> torch.Tensor:
        if self.mutant.clip(model, norm):
            # Before it scaled them, each was as large as this.
            return torch.zeros(())
        return self.right.clip(model, self.mutant.clip_norm(norm), kind)

    def clip_value(self, model: nn.Module, value: float) -> None:
        self.right.clip_value(model, value)

    def scaler(self, context: RankContext, scale: float) -> Any:
        return self.right.scaler(context, scale)

    def fill(self, model: nn.Module, state: dict[str, Any], context: RankContext) -> None:
        self.right.fill(model, state, context)

    def step_in_backward(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        self.right.step_in_backward(model, optimizer, make)

    def enter_by(self, model: nn.Module, method: str) -> None:
        self.right.enter_by(model, method)

    def uneven(self, model: nn.Module, missing_count: bool) -> AbstractContextManager[None]:
        return self.right.uneven(model, missing_count)

    @contextmanager
    def whole(self, model: nn.Module, *, write: bool) -> Iterator[None]:
        with self._unbroken(), self.right.whole(model, write=write):
            yield

    def average(self, model: nn.Module, modules: Collection[str]) -> None:
        self.right.average(model, modules)

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        return self.mutant.rows(batch, self.right.rows(batch, context))

    def learn(
        self,
        losses: Callable[[nn.Module, Batch], Iterable[torch.Tensor]],
        model: nn.Module,
        batch: Batch,
        weight: float,
        turn: tuple[int, int],
        *,
        scale: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        def wrong(loss: torch.Tensor) -> torch.Tensor:
            return self.mutant.loss(scale(loss), *turn)

        self.learning = True
        try:
            return self.right.learn(losses, model, batch, weight, turn, scale=wrong)
        finally:
            self.learning = False

    def optimizer(self, scenario: Scenario, model: nn.Module) -> torch.optim.Optimizer:
        made = self.right.optimizer(scenario, model)
        self.mutant.optimizer(made)
        return made

    def reload(
        self,
        old: tuple[nn.Module, torch.optim.Optimizer],
        new: tuple[nn.Module, torch.optim.Optimizer],
        by: str = "full",
    ) -> None:
        with self._unbroken():
            self.right.reload(old, new, by)
        self.mutant.reload(new[1])

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
        with self._unbroken():
            self.right.save(model, optimizer, folder)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
        with self._unbroken():
            self.right.load(model, optimizer, folder)
        self.mutant.reload(optimizer)


#: With the names of all releases: torch 2.13 renamed some.
_REDUCE_SCATTERS = ("reduce_scatter_tensor", "reduce_scatter_single")
_ALL_GATHERS = ("all_gather_into_tensor", "all_gather_single", "all_gather")


@contextmanager
def _hooks_kept() -> Iterator[list[tuple[Any, Callable[..., Any]]]]:
    """Within it, communication hooks are collected instead of registered, because only one is allowed."""
    kept: list[tuple[Any, Callable[..., Any]]] = []

    def register(_: Any, state: Any, hook: Callable[..., Any]) -> None:
        kept.append((state, hook))

    with mock.patch.object(DistributedDataParallel, "register_comm_hook", register):
        yield kept


@contextmanager
def _collectives(mutated: _Mutated) -> Iterator[None]:
    """Replacements for the collectives that strategies call, with the mutant in them."""
    gather = dist.all_gather
    wrong = {
        **dict.fromkeys(_REDUCE_SCATTERS, _reduce_scatter),
        **dict.fromkeys(_ALL_GATHERS, _all_gather),
        "all_reduce": _all_reduce,
    }
    kept = {name: getattr(dist, name) for name in wrong if hasattr(dist, name)}
    for name, right in kept.items():
        setattr(dist, name, wrong[name](mutated, right, gather))
    try:
        yield
    finally:
        for name, right in kept.items():
            setattr(dist, name, right)


Collective = Callable[..., Any]


def _reduce_scatter(mutated: _Mutated, right: Collective, gather: Collective) -> Collective:
    def reduce_scatter(
        output: torch.Tensor,
        input: torch.Tensor,  # noqa: A002  as torch calls it
        op: Any = dist.ReduceOp.SUM,
        group: Any = None,
        async_op: bool = False,
    ) -> Any:
        # The right call is made too, because the caller waits for its work object.
        work = right(output, input, op=op, group=group, async_op=async_op)
        everybody = _everybody(mutated, input, group, work, gather)
        if everybody is not None:
            owner = mutated.mutant.owner(mutated.mutant.rank)
            parts = [one.reshape(len(everybody), -1)[owner].clone() for one in everybody]
            output.copy_(_reduced(mutated, parts, op).reshape(output.shape))
        return work

    return reduce_scatter


def _all_reduce(mutated: _Mutated, right: Collective, gather: Collective) -> Collective:
    def all_reduce(
        tensor: torch.Tensor,
        op: Any = dist.ReduceOp.SUM,
        group: Any = None,
        async_op: bool = False,
    ) -> Any:
        before = tensor.clone()
        work = right(tensor, op=op, group=group, async_op=async_op)
        if mutated.learning and mutated.direct:
            everybody = _everybody(mutated, before, group, work, gather)
            if everybody is not None:
                tensor.copy_(_reduced(mutated, everybody, op))
        return work

    return all_reduce


def _everybody(
    mutated: _Mutated, own: torch.Tensor, group: Any, work: Any, gather: Collective
) -> list[torch.Tensor] | None:
    """The contribution of every rank of the group; None if there is no other rank in it."""
    if work is not None:
        work.wait()
    size = dist.get_world_size(group)
    if size == 1 or mutated.reading:
        return None
    found = [torch.empty_like(own) for _ in range(size)]
    gather(found, own, group=group)
    mutated.mutant.rank = dist.get_rank(group)
    return found


def _reduced(mutated: _Mutated, parts: list[torch.Tensor], op: Any) -> torch.Tensor:
    total = mutated.mutant.reduce(parts)
    return total / len(parts) if op == dist.ReduceOp.AVG else total


def _all_gather(mutated: _Mutated, right: Collective, _: Collective) -> Collective:
    def all_gather(output: Any, input: torch.Tensor, *words: Any, **named: Any) -> Any:  # noqa: A002
        shard = input if mutated.reading else mutated.mutant.gather(input)
        return right(output, shard, *words, **named)

    return all_gather
