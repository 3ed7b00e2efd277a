"""Deliberate faults: what the suite must see, or it proves nothing.

A mutant is a strategy made wrong in one way. It is put in at the collectives and at the strategy's
own methods, inside a rank, so that it works on every device, under every strategy to which it means
something, and with every torch.

A new mutant is one subclass of :class:`Mutant` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn

from distparity.strategies.base import Strategy, Tensors

if TYPE_CHECKING:
    from distparity.scenarios import Batch, Scenario
    from distparity.worlds.rank import Place

__all__ = ["Mutant", "applies", "load", "mutate"]

Parts = list[torch.Tensor]


class Mutant:
    """One fault. Each method is a place where a fault can sit, and does what is right."""

    name: ClassVar[str]
    #: What it does, for a reader.
    title: ClassVar[str]
    #: What a diagnosis may say of it: a part of the text. A mutant without one has none to give.
    diagnosis: ClassVar[tuple[str, ...]] = ()
    #: Only under strategies that shard, or only under those that replicate; None for both.
    sharded: ClassVar[bool | None] = None
    #: The scenario must use this (a feature's name, or ``twice``: some unit is called twice).
    needs: ClassVar[str | None] = None
    #: The step in which it happens, for one that happens once.
    at_step: ClassVar[int] = 0
    #: How large it is, relative to what it changes, where that is small: a dtype whose rounding is
    #: of that size cannot show it.
    size: ClassVar[float | None] = None
    #: Why nothing observable changes, for a mutant that is equivalent to the right thing.
    equivalent: ClassVar[str | None] = None

    def __init__(self, place: Place, *, sharded: bool) -> None:
        self.place = place
        self.is_sharded = sharded
        self.calls = 0
        self.step = -1

    def wrap(self, model: nn.Module, units: Sequence[nn.Module]) -> None:
        """Before the strategy wraps the model."""

    def reduce(self, parts: Parts) -> torch.Tensor:
        """The sum of what the ranks contributed to this rank's part of a gradient.

        ``parts`` are in rank order. Called for every reduction of the step that is under way.
        """
        return torch.stack(parts).sum(0)

    def owner(self, rank: int) -> int:
        """Whose part of a reduced gradient ``rank`` gets."""
        return rank

    def gather(self, shard: torch.Tensor) -> torch.Tensor:
        """What this rank puts into an all-gather of parameters."""
        return shard

    def rows(self, batch: Batch, rows: Batch) -> Batch:
        return rows

    def loss(self, loss: torch.Tensor, number: int, count: int) -> torch.Tensor:
        """The loss of micro-batch ``number`` of ``count``, before its backward."""
        return loss

    def no_sync(self) -> bool:
        """Whether ``no_sync`` has an effect."""
        return True

    def clip(self, model: nn.Module, norm: float) -> bool:
        """Clip in the strategy's place; True when done."""
        return False

    def clip_norm(self, norm: float) -> float:
        """The norm that the strategy clips to."""
        return norm

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Right after it was made."""

    def reload(self, optimizer: torch.optim.Optimizer) -> None:
        """Right after the state was loaded."""

    def first(self) -> bool:
        """True at the first call in the step that is under way: for a fault that happens once."""
        if self.step != self.place.step:
            self.step, self.calls = self.place.step, 0
        self.calls += 1
        return self.calls == 1

    def share(self) -> int:
        return self.place.world_size


class SumNotMean(Mutant):
    name = "sum_not_mean"
    title = "gradients are summed over the ranks and not divided"
    diagnosis = ("summed, not averaged", "constant factor")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce(parts) * self.share()


class AveragedTwice(Mutant):
    name = "averaged_twice"
    title = "gradients are divided by the world size twice"
    diagnosis = ("averaged twice", "constant factor")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce(parts) / self.share()


class WrongGroup(Mutant):
    name = "wrong_group"
    title = "the mean is over half of the ranks"
    diagnosis = ("mean over ranks", "not reduced at all")

    def reduce(self, parts: Parts) -> torch.Tensor:
        half = max(1, len(parts) // 2)
        start = 0 if self.place.rank < half else half
        group = parts[start : start + half] if start == 0 else parts[half:]
        return super().reduce(group) * len(parts) / len(group)


class NotReduced(Mutant):
    name = "not_reduced"
    title = "every rank keeps its own gradient"
    diagnosis = ("not reduced at all", "mean over ranks")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return parts[self.place.rank] * self.share()


class OneReductionNotReduced(Mutant):
    name = "one_bucket_not_reduced"
    title = "in step 1, the first reduction leaves every rank its own gradient"
    at_step = 1
    diagnosis = ("not reduced at all", "mean over ranks")

    def reduce(self, parts: Parts) -> torch.Tensor:
        if self.place.step == self.at_step and self.first():
            return parts[self.place.rank] * self.share()
        return super().reduce(parts)


class DroppedRank(Mutant):
    name = "dropped_rank"
    title = "in step 1, the last rank's contribution to the first reduction is lost"
    at_step = 1
    diagnosis = ("contribution missing",)

    def reduce(self, parts: Parts) -> torch.Tensor:
        if self.place.step == self.at_step and self.first():
            parts = parts[:-1]
        return super().reduce(parts)


class LeftOut(Mutant):
    name = "left_out_rank"
    title = "the mean is over all ranks but the first"
    diagnosis = ("left out of the mean", "mean over ranks", "not reduced at all")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce(parts[1:]) * self.share() / (self.share() - 1)


class CountedTwice(Mutant):
    name = "counted_twice"
    title = "rank 0's contribution stands in for the last rank's as well"
    diagnosis = ("in place of", "mean over ranks", "not reduced at all")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce([*parts[:-1], parts[0]])


class SwappedShards(Mutant):
    name = "swapped_shards"
    title = "ranks 0 and 1 get each other's part of every reduced gradient"
    diagnosis = ("other places",)
    sharded = True

    def owner(self, rank: int) -> int:
        return {0: 1, 1: 0}.get(rank, rank)


class ShiftedShard(Mutant):
    name = "shifted_shard"
    title = "every rank's part of a reduced gradient is shifted by one element"
    diagnosis = ("other places",)
    sharded = True

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce(parts).roll(1)


class StaleGather(Mutant):
    name = "stale_gather"
    title = "from step 1 on, all-gathers bring the parameters of the step before"
    diagnosis = ("stale",)
    sharded = True

    def __init__(self, place: Place, *, sharded: bool) -> None:
        super().__init__(place, sharded=sharded)
        self.kept: dict[int, list[torch.Tensor]] = {}

    def gather(self, shard: torch.Tensor) -> torch.Tensor:
        self.first()
        step = self.place.step
        self.kept.setdefault(step, []).append(shard.detach().clone())
        before = self.kept.get(step - 1, [])
        index = len(self.kept[step]) - 1
        return before[index] if index < len(before) else shard


class LastElementLost(Mutant):
    name = "last_element_lost"
    title = "the last element of every reduced gradient is zero, as a short shard's padding is"
    diagnosis = ("elements lost",)

    def reduce(self, parts: Parts) -> torch.Tensor:
        total = super().reduce(parts)
        held = total.flatten().nonzero()
        if len(held):
            total.view(-1)[held[-1]] = 0
        return total


class ReducedPrecision(Mutant):
    name = "bf16_reduction"
    title = "gradients travel as bfloat16"
    size = 2.0**-8
    diagnosis = ("reduced precision",)

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce([part.bfloat16().to(part.dtype) for part in parts])


class OneElement(Mutant):
    name = "one_element"
    title = "in step 1, one element of one gradient is off by 1e-4 of its value"
    size = 1e-4
    at_step = 1

    def reduce(self, parts: Parts) -> torch.Tensor:
        total = super().reduce(parts)
        if self.place.step == self.at_step and self.first() and self._mine():
            flat = total.view(-1)
            flat[flat.abs().argmax()] *= 1 + 1e-4
        return total

    def _mine(self) -> bool:
        return not self.is_sharded or self.place.rank == 0


class NotANumber(Mutant):
    name = "nan"
    title = "in step 2, one element of one gradient is NaN"
    at_step = 2

    def reduce(self, parts: Parts) -> torch.Tensor:
        total = super().reduce(parts)
        if self.place.step == self.at_step and self.first():
            total.view(-1)[0] = float("nan")
        return total


class SecondForwardLost(Mutant):
    name = "second_forward_lost"
    title = "a unit's second call in a forward adds nothing to its gradient"
    needs = "twice"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module]) -> None:
        for unit in units:
            _at_second_call(model, unit, torch.Tensor.detach)


class SecondForwardDoubled(Mutant):
    name = "second_forward_doubled"
    title = "a unit's second call in a forward adds its gradient twice"
    needs = "twice"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module]) -> None:
        for unit in units:
            _at_second_call(model, unit, lambda value: value * 2 - value.detach())


class AccumulationOverwrites(Mutant):
    name = "accumulation_overwrites"
    title = "a micro-batch's gradient takes the place of what had added up"
    needs = "micro_batches"

    def loss(self, loss: torch.Tensor, number: int, count: int) -> torch.Tensor:
        return loss if number == count - 1 else loss * 0


class LastMicroBatchDropped(Mutant):
    name = "last_micro_batch_dropped"
    title = "the last micro-batch adds nothing"
    needs = "micro_batches"

    def loss(self, loss: torch.Tensor, number: int, count: int) -> torch.Tensor:
        return loss * 0 if number == count - 1 else loss


class MicroBatchesNotDivided(Mutant):
    name = "micro_batches_not_divided"
    title = "the gradients of micro-batches are summed where their mean was asked"
    diagnosis = ("a constant factor",)
    needs = "micro_batches"

    def loss(self, loss: torch.Tensor, number: int, count: int) -> torch.Tensor:
        return loss * count


class NoSyncSyncs(Mutant):
    name = "no_sync_syncs"
    title = "no_sync exchanges gradients all the same"
    needs = "no_sync"
    equivalent = (
        "the exchange is linear: the mean over ranks of a sum of micro-batches is the sum of their "
        "means, so that exchanging more often costs time and changes no number beyond rounding"
    )

    def no_sync(self) -> bool:
        return False


class SyncDoesNot(Mutant):
    name = "sync_does_not"
    title = "of the micro-batches before the last, only rank 0's take part in the exchange"
    needs = "no_sync"
    diagnosis = ()

    def loss(self, loss: torch.Tensor, number: int, count: int) -> torch.Tensor:
        # What was accumulated before stays on its rank: here it is lost to the others.
        keep = number == count - 1 or self.place.rank == 0
        return loss if keep else loss * 0


class LocalNormClip(Mutant):
    name = "local_norm_clip"
    title = "every rank clips by the norm of its own shard"
    diagnosis = ("a constant factor",)
    sharded = True
    needs = "clip_norm"

    def clip(self, model: nn.Module, norm: float) -> bool:
        held = [_local(p.grad) for p in model.parameters() if p.grad is not None]
        total = torch.sqrt(sum((g.double() ** 2).sum() for g in held))  # type: ignore[arg-type]
        for gradient in held:
            gradient.mul_((norm / (total + 1e-6)).clamp(max=1.0).to(gradient.dtype))
        return True


class NotClipped(Mutant):
    name = "not_clipped"
    title = "gradients are not clipped"
    diagnosis = ("a constant factor",)
    needs = "clip_norm"

    def clip(self, model: nn.Module, norm: float) -> bool:
        return True


class HalfClipped(Mutant):
    name = "clipped_to_half"
    title = "gradients are clipped to half the norm asked for"
    diagnosis = ("a constant factor",)
    needs = "clip_norm"

    def clip_norm(self, norm: float) -> float:
        return norm / 2


class WeightDecayTwice(Mutant):
    name = "weight_decay_twice"
    title = "weight decay is applied twice"
    needs = "weight_decay"

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["weight_decay"] *= 2


class LearningRate(Mutant):
    name = "learning_rate"
    title = "the learning rate is too large by a thousandth"
    size = 1e-3
    diagnosis = ("update is a constant factor",)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= 1.001


class MomentumLost(Mutant):
    name = "momentum_lost_on_reload"
    title = "the optimizer's state is empty after a reload"
    diagnosis = ("optimizer state",)
    needs = "reload"

    def reload(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state.clear()


class MomentumReset(Mutant):
    name = "momentum_reset"
    title = "the optimizer's state is lost after step 0"
    at_step = 1
    diagnosis = ("optimizer state",)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        def forget(*_: Any) -> None:
            if self.place.step == self.at_step:
                optimizer.state.clear()

        optimizer.register_step_pre_hook(forget)


class StepSkipped(Mutant):
    name = "step_skipped"
    title = "in step 1 the optimizer of the last rank does nothing"
    at_step = 1
    diagnosis = ("stale",)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        def hold(*_: Any) -> None:
            if self.place.step == self.at_step and self.place.rank == self.place.world_size - 1:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = None

        optimizer.register_step_pre_hook(hold)


class OneBit(Mutant):
    name = "one_bit"
    title = "after step 1, one bit of the last rank's replica is flipped"
    at_step = 1
    diagnosis = ("replicas differ",)
    sharded = False

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        def flip(*_: Any) -> None:
            if self.place.step == self.at_step and self.place.rank == self.place.world_size - 1:
                value = optimizer.param_groups[0]["params"][0].data.view(-1)
                value[0] = torch.nextafter(value[0], torch.full_like(value[0], 9.0))

        optimizer.register_step_post_hook(flip)


class SameData(Mutant):
    name = "same_data"
    title = "every rank trains on rank 0's rows"
    diagnosis = ("mean over ranks", "not reduced at all", "in place of")

    def rows(self, batch: Batch, rows: Batch) -> Batch:
        return tuple(tensor.chunk(self.share())[0] for tensor in batch)


class OverlappingRows(Mutant):
    name = "overlapping_rows"
    title = "every rank's rows but the first's begin one row early"

    def rows(self, batch: Batch, rows: Batch) -> Batch:
        if self.place.rank == 0:
            return rows
        return tuple(tensor.roll(1, 0).chunk(self.share())[self.place.rank] for tensor in batch)


class BufferNotBroadcast(Mutant):
    name = "buffer_not_broadcast"
    title = "buffers keep what each rank began with"
    diagnosis = ("initial state",)
    sharded = False
    needs = "begins_with_rank_0"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module]) -> None:
        names = [name for name, _ in model.named_buffers()]
        # By the name under which DDP looks for it.
        setattr(model, "_ddp_params_and_buffers_to_ignore", names)  # noqa: B010


class ParametersNotBroadcast(Mutant):
    name = "parameters_not_broadcast"
    title = "parameters keep what each rank began with"
    diagnosis = ("initial state",)
    sharded = False
    needs = "begins_with_rank_0"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module]) -> None:
        self.own = [p.detach().clone() for p in model.parameters()]
        self.model = model

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), self.own, strict=True):
                parameter.copy_(value)


def load() -> dict[str, type[Mutant]]:
    """All mutants by name, in the order in which they stand here."""
    return {kind.name: kind for kind in Mutant.__subclasses__()}


def applies(kind: type[Mutant], strategy: Strategy, scenario: Scenario) -> bool:
    """Whether the fault means something under a strategy, to a scenario."""
    return kind.sharded in (None, not strategy.replicates) and (
        kind.needs is None or kind.needs in scenario.features()
    )


# -- how a mutant gets in --------------------------------------------------------------------------


@contextmanager
def mutate(strategy: Strategy, kind: type[Mutant], place: Place) -> Iterator[Strategy]:
    """The strategy with a fault in it, for as long as the context lasts."""
    mutant = kind(place, sharded=not strategy.replicates)
    mutated = _Mutated(strategy, mutant)
    with _collectives(mutated):
        yield mutated


class _Mutated(Strategy):
    """A strategy, with a mutant between it and its callers."""

    def __init__(self, right: Strategy, mutant: Mutant) -> None:
        self.right = right
        self.mutant = mutant
        #: Reading state back uses collectives as well, and those are not to be broken.
        self.reading = False

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], place: Place) -> nn.Module:
        self.mutant.wrap(model, units)
        wrapped = self.right.wrap(model, units, place)
        if self.right.replicates:
            wrapped.register_comm_hook(None, self._hook())  # type: ignore[operator]
        return wrapped

    def _hook(self) -> Callable[[Any, Any], Any]:
        # Unannotated: torch compares annotations with its own classes.
        def hook(_, bucket):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            buffer = bucket.buffer()
            parts = [torch.empty_like(buffer) for _ in range(self.mutant.share())]
            dist.all_gather(parts, buffer)
            future: Any = torch.futures.Future()
            future.set_result(self.mutant.reduce(parts) / self.mutant.share())
            return future

        return hook

    def parameters(self, model: nn.Module) -> Tensors:
        return self._read(self.right.parameters, model)

    def gradients(self, model: nn.Module) -> Tensors:
        return self._read(self.right.gradients, model)

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        return self._read(self.right.optimizer_state, model, optimizer)

    def buffers(self, model: nn.Module) -> Tensors:
        return self.right.buffers(model)

    def _read(self, reader: Callable[..., Tensors], *words: Any) -> Tensors:
        self.reading = True
        try:
            return reader(*words)
        finally:
            self.reading = False

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        if self.mutant.no_sync():
            with self.right.no_sync(model):
                yield
        else:
            yield

    def clip(self, model: nn.Module, norm: float, kind: float = 2.0) -> None:
        if not self.mutant.clip(model, norm):
            self.right.clip(model, self.mutant.clip_norm(norm), kind)

    def clip_value(self, model: nn.Module, value: float) -> None:
        self.right.clip_value(model, value)

    def scaler(self, place: Place, scale: float) -> Any:
        return self.right.scaler(place, scale)

    def enter_by(self, model: nn.Module, method: str) -> None:
        self.right.enter_by(model, method)

    def rows(self, batch: Batch, place: Place) -> Batch:
        return self.mutant.rows(batch, self.right.rows(batch, place))

    def backward(self, loss: torch.Tensor, number: int, count: int) -> None:
        self.right.backward(self.mutant.loss(loss, number, count), number, count)

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
        self.reading = True
        self.right.reload(old, new, by)
        self.reading = False
        self.mutant.reload(new[1])


#: By their names of all releases: torch 2.13 renamed them.
_REDUCE_SCATTERS = ("reduce_scatter_tensor", "reduce_scatter_single")
_ALL_GATHERS = ("all_gather_into_tensor", "all_gather_single", "all_gather")


@contextmanager
def _collectives(mutated: _Mutated) -> Iterator[None]:
    """The collectives that sharding strategies call, with the mutant in them."""
    kept = {
        name: getattr(dist, name)
        for name in (*_REDUCE_SCATTERS, *_ALL_GATHERS)
        if hasattr(dist, name)
    }
    for name, right in kept.items():
        wrong = _reduce_scatter if name in _REDUCE_SCATTERS else _all_gather
        setattr(dist, name, wrong(mutated, right, kept["all_gather"]))
    try:
        yield
    finally:
        for name, right in kept.items():
            setattr(dist, name, right)


def _reduce_scatter(
    mutated: _Mutated, right: Callable[..., Any], all_gather: Callable[..., Any]
) -> Callable[..., Any]:
    def reduce_scatter(
        output: torch.Tensor,
        input: torch.Tensor,  # noqa: A002  as torch calls it
        op: Any = dist.ReduceOp.SUM,
        group: Any = None,
        async_op: bool = False,
    ) -> Any:
        if mutated.reading:
            return right(output, input, op=op, group=group, async_op=async_op)
        # The right call is made as well: its work object is what the caller waits for.
        work = right(output, input, op=op, group=group, async_op=async_op)
        if work is not None:
            work.wait()
        world, place = mutated.mutant.share(), mutated.mutant.place
        everybody = [torch.empty_like(input) for _ in range(world)]
        all_gather(everybody, input, group=group)
        owner = mutated.mutant.owner(place.rank)
        parts = [one.reshape(world, -1)[owner].clone() for one in everybody]
        total = mutated.mutant.reduce(parts)
        if op == dist.ReduceOp.AVG:
            total = total / world
        output.copy_(total.reshape(output.shape))
        return work

    return reduce_scatter


def _all_gather(
    mutated: _Mutated, right: Callable[..., Any], _: Callable[..., Any]
) -> Callable[..., Any]:
    def all_gather(output: Any, input: torch.Tensor, *words: Any, **named: Any) -> Any:  # noqa: A002
        shard = input if mutated.reading else mutated.mutant.gather(input)
        return right(output, shard, *words, **named)

    return all_gather


def _local(tensor: Any) -> torch.Tensor:
    """This rank's part of a DTensor; a plain tensor as it is."""
    local: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def _at_second_call(
    model: nn.Module, unit: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Have the unit use changed parameters when it is called again within a forward."""
    names = [name for name, _ in unit.named_parameters(recurse=False)]
    right = unit.forward
    calls = 0

    def start(*_: Any) -> None:
        nonlocal calls
        calls = 0

    def forward(*words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            return right(*words)
        # Where a wrapper keeps them, as a parameter or as a view of a flat one.
        plain: dict[str, Any] = vars(unit)["_parameters"]
        holders = [vars(unit) if name in vars(unit) else plain for name in names]
        values = [getattr(unit, name) for name in names]
        for holder, name, value in zip(holders, names, values, strict=True):
            holder[name] = change(value)
        try:
            return right(*words)
        finally:
            for holder, name, value in zip(holders, names, values, strict=True):
                holder[name] = value

    model.register_forward_pre_hook(start)
    unit.forward = forward
