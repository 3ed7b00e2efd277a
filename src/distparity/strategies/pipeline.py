"""``torch.distributed.pipelining``: every rank has some layers, and micro-batches pass through them."""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distparity.strategies._dtensor_state import keep_state
from distparity.strategies._meshes import DeviceMesh, mesh
from distparity.strategies.base import Pending, Strategy, Tensors
from distparity.strategies.fsdp2 import Fsdp2, fsdp_module, whole

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch, Scenario


def pipelining() -> Any:
    """Import torch's module when it is used.

    It imports torch._dynamo, which is a quarter of all imports, and listing the cases does not need it.
    """
    return importlib.import_module("torch.distributed.pipelining")


@dataclass(frozen=True)
class Line:
    """The line of ranks that share the stages of one model, from one rank's point of view."""

    #: The process group of the line, its global ranks in order, and this rank's number in it.
    group: Any
    ranks: list[int]
    number: int
    device: torch.device
    #: How many ranks have the same stages, and which of them this one is.
    replicas: int = 1
    replica: int = 0
    #: Those ranks.
    data: DeviceMesh | None = None


class Piped(nn.Module):
    """The stages of one rank. Its children have the names that they have in the whole model."""

    def __init__(self, line: Line, stages: Sequence[nn.Module], holders: Sequence[int]) -> None:
        super().__init__()
        self.line = line
        # In a tuple, so that they are not registered as children.
        self.all = tuple(stages)
        #: The numbers of this rank's stages, and the rank that has the last.
        self.mine = [number for number, holder in enumerate(holders) if holder == line.number]
        self.end = line.ranks[holders[-1]]
        for number in self.mine:
            for name, child in stages[number].named_children():
                self.add_module(name, child)
        #: The schedule for each shape of a batch.
        self.schedules: dict[tuple[int, ...], Any] = {}
        self.wrapped = {number: self.all[number] for number in self.mine}

    def of_all(self, tensors: Tensors) -> Tensors:
        """The tensors of all ranks of the line, by name; a collective call on all ranks."""
        found: Tensors = {}
        for source in self.line.ranks:
            for name, tensor in self._from(source, tensors).items():
                found.setdefault(name, tensor)
        return found

    def _from(self, source: int, tensors: Tensors) -> Tensors:
        here = source == self.line.ranks[self.line.number]
        about = [
            [name, None if one is None else [str(one.dtype).removeprefix("torch."), *one.shape]]
            for name, one in tensors.items()
        ]
        text = json.dumps(about).encode()
        size = self._send(torch.tensor(len(text)), source)
        raw = torch.frombuffer(bytearray(text), dtype=torch.uint8) if here else None
        raw = self._send(torch.empty(int(size), dtype=torch.uint8) if raw is None else raw, source)
        found: Tensors = {}
        for name, kind in json.loads(bytes(raw.tolist())):
            if kind is None:
                found[name] = None
                continue
            own = tensors[name] if here else None
            fresh = torch.empty(kind[1:], dtype=getattr(torch, kind[0]))
            found[name] = self._send(fresh if own is None else own, source)
        return found

    def _send(self, tensor: torch.Tensor, source: int) -> torch.Tensor:
        sent = tensor.detach().to(self.line.device).contiguous()
        dist.broadcast(sent, source, group=self.line.group)
        return sent


class GPipe(Strategy):
    name = "pp_gpipe"
    exchanges: ClassVar[bool] = False
    title = "pipelining.ScheduleGPipe"
    needs: ClassVar[Mapping[str, str]] = {"stages": "the scenario's model has no stages"}
    lacks: ClassVar[Mapping[str, str]] = {
        "begins_with_rank_0": "each rank keeps the stages that it began with",
        "clip_norm": "clip_grad_norm_ uses only the parameters that it is given: those of the rank's own stages",
    }
    schedule: ClassVar[str] = "ScheduleGPipe"
    #: The number of stages per rank.
    per_rank: ClassVar[int] = 1
    cuts: ClassVar[Mapping[str, int]] = {"stages": 1}
    stages: tuple[tuple[str, ...], ...]

    def suit(self, scenario: Scenario) -> Strategy:
        mine = copy.copy(self)
        mine.stages = scenario.stages
        return mine

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        line = self.line(context)
        count, ranks = len(line.ranks) * self.per_rank, len(line.ranks)
        holders = [self.holder(stage, ranks) for stage in range(count)]
        piped = Piped(line, self._cut(model, count), holders)
        for number in piped.mine:
            piped.wrapped[number] = self.replicate(piped.all[number], line)
        return piped

    def holder(self, stage: int, ranks: int) -> int:
        """The rank of a line that has a stage: stages are assigned in turn."""
        return stage % ranks

    def line(self, context: RankContext) -> Line:
        ranks = list(range(context.world_size))
        return Line(dist.group.WORLD, ranks, context.rank, context.device)

    def replicate(self, stage: nn.Module, line: Line) -> nn.Module:
        """A stage, distributed over the ranks that have the same stage."""
        return stage

    def _cut(self, model: nn.Module, count: int) -> list[nn.Module]:
        """Split the model into ``count`` modules, each with about equally many stages."""
        assert len(self.stages) >= count, f"{len(self.stages)} stages, for {count} parts"
        bounds = [len(self.stages) * part // count for part in range(count + 1)]
        parts = (self.stages[start:end] for start, end in itertools.pairwise(bounds))
        return [
            nn.Sequential(
                OrderedDict((name, model.get_submodule(name)) for stage in part for name in stage)
            )
            for part in parts
        ]

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        line = self.line(context)
        return tuple(tensor.chunk(line.replicas)[line.replica] for tensor in batch)

    def rows_shared_by(self, context: RankContext) -> int:
        return context.world_size // self.line(context).replicas

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        # Ranks of a line exchange activations; each rank computes its own gradients.
        yield

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
        assert isinstance(model, Piped)
        line, (x, target) = model.line, batch
        count = 2 * len(line.ranks)
        shares: list[torch.Tensor] = []

        def of_output(output: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            # The scenario's loss calls its model, and the model's output is known here already.
            there: Any = lambda _: output  # noqa: E731
            share = torch.stack(list(losses(there, (output, wanted)))).sum() * (weight / count)
            shares.append(share.detach())
            return scale(share)

        schedule = self._schedule(model, x, count)
        schedule._loss_fn = of_output  # noqa: SLF001  it is another one for each weight
        last = len(model.all) - 1 in model.mine
        words = (x,) if 0 in model.mine else ()
        schedule.step(*words, target=target if last else None)
        # The first step calls the loss once more, without data, to find the shape of its output.
        total = torch.stack(shares[-count:]).sum() if last else torch.zeros_like(x.flatten()[0])
        dist.broadcast(total, model.end, group=line.group)
        return total

    def _schedule(self, model: Piped, x: torch.Tensor, count: int) -> Any:
        if tuple(x.shape) not in model.schedules:
            model.schedules[tuple(x.shape)] = self._new_schedule(model, x, count)
        return model.schedules[tuple(x.shape)]

    def _new_schedule(self, model: Piped, x: torch.Tensor, count: int) -> Any:
        line = model.line
        stages = []
        for number in model.mine:
            options: dict[str, Any] = {"group": line.group}
            takes = inspect.signature(pipelining().PipelineStage).parameters
            if takes["input_args"].default is inspect.Parameter.empty:
                # Before 2.5 a stage needs an example of its input.
                with torch.no_grad():
                    options["input_args"] = nn.Sequential(*model.all[:number])(x.chunk(count)[0])
            stages.append(
                pipelining().PipelineStage(
                    model.wrapped[number], number, len(model.all), line.device, **options
                )
            )
        kind = getattr(pipelining(), self.schedule)
        more: dict[str, Any] = {"loss_fn": lambda *_: None}
        takes = inspect.signature(kind).parameters
        if "stage_index_to_group_rank" in takes:
            # Before 2.7 a schedule needs the rank of each stage; it assumes that they are assigned in turn.
            ranks = len(line.ranks)
            holders = {stage: self.holder(stage, ranks) for stage in range(len(model.all))}
            more["stage_index_to_group_rank"] = holders
        if "scale_grads" in takes:
            # The loss of a micro-batch is already its share of the batch's loss.
            more["scale_grads"] = False
        many = self.per_rank > 1
        return kind(stages if many else stages[0], count, **more)

    def parameters(self, model: nn.Module) -> Tensors:
        return self._all(model, {name: whole(p.detach()) for name, p in model.named_parameters()})

    def gradients(self, model: nn.Module) -> Tensors:
        return self._all(model, {name: whole(p.grad) for name, p in model.named_parameters()})

    def buffers(self, model: nn.Module) -> Tensors:
        return self._all(model, dict(model.named_buffers()))

    def _all(self, model: nn.Module, tensors: Tensors) -> Tensors:
        assert isinstance(model, Piped)
        return model.of_all(tensors)

    shows_state = True

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Pending]:
        yield keep_state(model, optimizer)

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        return self._all(model, super().optimizer_state(model, optimizer))

    def reload(
        self,
        old: tuple[nn.Module, torch.optim.Optimizer],
        new: tuple[nn.Module, torch.optim.Optimizer],
        by: str = "full",
    ) -> None:
        new[0].load_state_dict(old[0].state_dict())
        new[1].load_state_dict(old[1].state_dict())


class OneForwardOneBackward(GPipe):
    name = "pp_1f1b"
    title = "pipelining.Schedule1F1B"
    schedule = "Schedule1F1B"


class Interleaved(GPipe):
    name = "pp_interleaved"
    title = "pipelining.ScheduleInterleaved1F1B, two stages a rank"
    schedule = "ScheduleInterleaved1F1B"
    per_rank = 2
    cuts: ClassVar[Mapping[str, int]] = {"stages": 2}


class _WithData(GPipe):
    """Lines of two ranks, side by side. It has no name, so it makes no cases."""

    exchanges = True
    schedule = "Schedule1F1B"
    cuts: ClassVar[Mapping[str, int]] = {}
    least_ranks = 4
    ranks_multiple_of = 2

    def line(self, context: RankContext) -> Line:
        both = mesh(context, (context.world_size // 2, 2), ("data", "stage"))
        row, column = divmod(context.rank, 2)
        return Line(
            both["stage"].get_group(),
            [2 * row, 2 * row + 1],
            column,
            context.device,
            context.world_size // 2,
            row,
            both["data"],
        )


class PipelineDdp(_WithData):
    name = "pp_ddp"
    title = "pipelining.Schedule1F1B, each stage in DistributedDataParallel"

    def replicate(self, stage: nn.Module, line: Line) -> nn.Module:
        assert line.data is not None
        return DistributedDataParallel(stage, process_group=line.data.get_group())

    def reducers(self, model: nn.Module) -> list[Any]:
        assert isinstance(model, Piped)
        # They must not be children of the module, which has the stages' children under their own names.
        stages = model.wrapped.values()
        return [stage for stage in stages if isinstance(stage, DistributedDataParallel)]


class PipelineFsdp2(_WithData):
    name = "pp_fsdp2"
    title = "pipelining.Schedule1F1B, each stage in fully_shard"
    limits = Fsdp2.limits

    def attempt(self, context: RankContext, dtype: torch.dtype, features: Collection[str]) -> None:
        Fsdp2().attempt(context, dtype, features)

    def replicate(self, stage: nn.Module, line: Line) -> nn.Module:
        sharded: nn.Module = fsdp_module().fully_shard(stage, mesh=line.data)
        return sharded


class PipelineInterleavedFsdp2(PipelineFsdp2):
    name = "pp_interleaved_fsdp2"
    title = "pipelining.ScheduleInterleaved1F1B, each stage in fully_shard"
    schedule = "ScheduleInterleaved1F1B"
    per_rank = 2


class PipelineInterleavedDdp(PipelineDdp):
    name = "pp_interleaved_ddp"
    title = "pipelining.ScheduleInterleaved1F1B, each stage in DistributedDataParallel"
    schedule = "ScheduleInterleaved1F1B"
    per_rank = 2
