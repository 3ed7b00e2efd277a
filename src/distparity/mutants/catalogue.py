"""The faults. A new one is one subclass of :class:`Mutant` here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from distparity.mutants.base import Mutant, Parts

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch


class Control(Mutant):
    name = "control"
    title = "no fault: only the injection itself"
    equivalent = "it shows that the suite catches the faults, and not the injection itself"


class SumNotMean(Mutant):
    name = "sum_not_mean"
    title = "gradients are summed over the ranks and not divided"
    diagnosis = ("summed, not averaged", "constant factor")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce(parts) * len(parts)


class AveragedTwice(Mutant):
    name = "averaged_twice"
    title = "gradients are divided by the world size twice"
    diagnosis = ("averaged twice", "constant factor")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce(parts) / len(parts)


class WrongGroup(Mutant):
    name = "wrong_group"
    title = "the mean is over half of the ranks"
    diagnosis = ("mean over ranks", "not reduced at all")

    def reduce(self, parts: Parts) -> torch.Tensor:
        half = max(1, len(parts) // 2)
        start = 0 if self.rank < half else half
        group = parts[start : start + half] if start == 0 else parts[half:]
        return super().reduce(group) * len(parts) / len(group)


class NotReduced(Mutant):
    name = "not_reduced"
    title = "every rank keeps its own gradient"
    diagnosis = ("not reduced at all", "mean over ranks")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return parts[self.rank] * len(parts)


class OneReductionNotReduced(Mutant):
    name = "one_bucket_not_reduced"
    title = "in step 1, the first reduction leaves every rank its own gradient"
    at_step = 1
    diagnosis = ("not reduced at all", "mean over ranks")

    def reduce(self, parts: Parts) -> torch.Tensor:
        if self.context.step == self.at_step and self.first_of(parts):
            return parts[self.rank] * len(parts)
        return super().reduce(parts)


class DroppedRank(Mutant):
    name = "dropped_rank"
    title = "in step 1, the last rank's contribution to the first reduction is lost"
    at_step = 1
    diagnosis = ("contribution missing",)

    def reduce(self, parts: Parts) -> torch.Tensor:
        if self.context.step == self.at_step and self.first_of(parts):
            parts = parts[:-1]
        return super().reduce(parts)


class LeftOut(Mutant):
    name = "left_out_rank"
    title = "the mean is over all ranks but the first"
    diagnosis = ("left out of the mean", "mean over ranks", "not reduced at all")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce(parts[1:]) * len(parts) / (len(parts) - 1)


class CountedTwice(Mutant):
    name = "counted_twice"
    title = "rank 0's contribution replaces the last rank's"
    diagnosis = ("in place of", "mean over ranks", "not reduced at all")

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce([*parts[:-1], parts[0]])


class SwappedShards(Mutant):
    name = "swapped_shards"
    title = "ranks 0 and 1 get each other's part of every reduced gradient"
    diagnosis = ("wrong places",)
    sharded = True

    def owner(self, rank: int) -> int:
        return {0: 1, 1: 0}.get(rank, rank)


class ShiftedShard(Mutant):
    name = "shifted_shard"
    title = "every rank's part of a reduced gradient is shifted by one element"
    diagnosis = ("wrong places",)
    sharded = True

    def reduce(self, parts: Parts) -> torch.Tensor:
        return super().reduce(parts).roll(1)


class StaleGather(Mutant):
    name = "stale_gather"
    title = "from step 1 on, all-gathers return the parameters of the step before"
    diagnosis = ("stale",)
    sharded = True

    def __init__(self, context: RankContext, *, sharded: bool) -> None:
        super().__init__(context, sharded=sharded)
        self.kept: dict[int, list[torch.Tensor]] = {}

    def gather(self, shard: torch.Tensor) -> torch.Tensor:
        self.first()
        step = self.context.step
        self.kept.setdefault(step, []).append(shard.detach().clone())
        before = self.kept.get(step - 1, [])
        index = len(self.kept[step]) - 1
        return before[index] if index < len(before) else shard


class LastElementLost(Mutant):
    name = "last_element_lost"
    title = "the last element of every reduced gradient is zero, like the padding of a short shard"
    diagnosis = ("elements lost",)

    def reduce(self, parts: Parts) -> torch.Tensor:
        total = super().reduce(parts)
        held = total.flatten().nonzero()
        if len(held):
            total.view(-1)[held[-1]] = 0
        return total


class ReducedPrecision(Mutant):
    name = "bf16_reduction"
    title = "gradients are reduced in bfloat16"
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
        if self.context.step == self.at_step and self.first_of([total]) and self._mine():
            flat = total.view(-1)
            flat[flat.abs().argmax()] *= 1 + 1e-4
        return total

    def _mine(self) -> bool:
        return not self.is_sharded or self.context.rank == 0


class NotANumber(Mutant):
    name = "nan"
    title = "in step 2, one element of one gradient is NaN"
    at_step = 2

    def reduce(self, parts: Parts) -> torch.Tensor:
        total = super().reduce(parts)
        if self.context.step == self.at_step and self.first():
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
    title = "a micro-batch's gradient overwrites the accumulated gradient"
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
    title = "the gradients of micro-batches are summed instead of averaged"
    diagnosis = ("a constant factor",)
    needs = "micro_batches"

    def loss(self, loss: torch.Tensor, number: int, count: int) -> torch.Tensor:
        return loss * count


class NoSyncSyncs(Mutant):
    name = "no_sync_syncs"
    title = "no_sync exchanges gradients anyway"
    needs = "no_sync"
    equivalent = (
        "the exchange is linear: the mean over ranks of a sum of micro-batches is the sum of their "
        "means, so that exchanging more often costs time and changes no number beyond rounding"
    )

    def no_sync(self) -> bool:
        return False


class SyncDoesNot(Mutant):
    name = "sync_does_not"
    title = "only rank 0's micro-batches before the last one take part in the exchange"
    needs = "no_sync"
    diagnosis = ()

    def loss(self, loss: torch.Tensor, number: int, count: int) -> torch.Tensor:
        # What was accumulated before stays on its rank, so the other ranks lose it.
        keep = number == count - 1 or self.context.rank == 0
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
    title = "gradients are clipped to half the requested norm"
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
        _forget(optimizer)


class MomentumReset(Mutant):
    name = "momentum_reset"
    title = "the optimizer's state is lost after step 0"
    at_step = 1
    diagnosis = ("optimizer state",)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        def forget(*_: Any) -> None:
            if self.context.step == self.at_step:
                _forget(optimizer)

        optimizer.register_step_pre_hook(forget)


class StepSkipped(Mutant):
    name = "step_skipped"
    title = "in step 1 the optimizer of the last rank does nothing"
    at_step = 1
    diagnosis = ("stale",)

    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        def hold(*_: Any) -> None:
            if (
                self.context.step == self.at_step
                and self.context.rank == self.context.world_size - 1
            ):
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
            if (
                self.context.step == self.at_step
                and self.context.rank == self.context.world_size - 1
            ):
                value = _local(optimizer.param_groups[0]["params"][0].detach()).view(-1)
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
    title = "on all ranks but the first, the rows begin one row early"
    spares_first = True

    def rows(self, batch: Batch, rows: Batch) -> Batch:
        if self.context.rank == 0:
            return rows
        return tuple(tensor.roll(1, 0).chunk(self.share())[self.context.rank] for tensor in batch)


class BufferNotBroadcast(Mutant):
    name = "buffer_not_broadcast"
    title = "buffers keep what each rank began with"
    diagnosis = ("initial state",)
    sharded = False
    needs = "begins_with_rank_0"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module]) -> None:
        names = [name for name, _ in model.named_buffers()]
        # The attribute that DDP reads.
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


def _forget(optimizer: Any) -> None:
    """Empty the state of an optimizer, and of the inner optimizer that ZeRO has for its own shard."""
    optimizer.state.clear()
    if hasattr(optimizer, "optim"):
        optimizer.optim.state.clear()


def _local(tensor: Any) -> torch.Tensor:
    """This rank's shard of a DTensor; a plain tensor unchanged."""
    local: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def _at_second_call(
    model: nn.Module, unit: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Make the unit use changed parameters at its second call in a forward."""
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
        # A wrapper keeps them as parameters, or as views of a flat parameter.
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
