"""Strategies in which the last rank diverges: it waits for a message that nobody sends.

The others wait for it in whatever the strategy exchanges there. Given to a run with
``--include astray``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import _functional_collectives as functional

from distparity.devices.context import RankContext
from distparity.strategies import Pending, Strategy, Tensors
from distparity.strategies.ddp import Ddp
from distparity.strategies.fsdp1 import Fsdp1
from distparity.strategies.fsdp2 import Fsdp2


class Astray(Strategy):
    """The last rank leaves the others in the second step: in its forward, backward or reading."""

    title = "one rank out of step"
    tier = "variant"
    moment: ClassVar[str]

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        self.lost = context.rank == context.world_size - 1
        self.forwards = 0
        wrapped = super().wrap(model, units, context)
        wrapped.register_forward_pre_hook(self._before, prepend=True)
        wrapped.register_forward_hook(self._after)
        return wrapped

    def gradients(self, model: nn.Module) -> Tensors | Pending:
        self._leave("read")
        return super().gradients(model)

    def _before(self, *_: Any) -> None:
        self.forwards += 1
        self._leave("forward")

    def _after(self, _module: nn.Module, _args: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda _: self._leave("backward"))

    def _leave(self, moment: str) -> None:
        if self.lost and moment == self.moment and self.forwards == 2:
            dist.recv(torch.zeros(8), src=0)


class Exchange(Ddp):
    """DDP that exchanges something of no use before its gradients are read."""

    #: In place of a name: it is no strategy by itself.
    label: ClassVar[str]

    def gradients(self, model: nn.Module) -> Tensors:
        self.exchange([torch.ones(12), torch.ones(6)])
        return super().gradients(model)

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        raise NotImplementedError


class Asynchronous(Exchange):
    label = "asynchronous"

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
        for work in works:
            work.wait()


class Functional(Exchange):
    label = "functional"

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        _finish(functional.all_reduce(tensors[0], "sum", _everybody()))


class CoalescedSum(Exchange):
    label = "coalesced-sum"

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        for one in functional.all_reduce_coalesced(tensors, "sum", _everybody()):
            _finish(one)


class CoalescedGather(Exchange):
    label = "coalesced-gather"

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        for one in functional.all_gather_into_tensor_coalesced(tensors, _everybody()):
            _finish(one)


class CoalescedScatter(Exchange):
    label = "coalesced-scatter"

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        group, dims = _everybody(), [0, 0]
        for one in functional.reduce_scatter_tensor_coalesced(tensors, "sum", dims, group):
            _finish(one)


class Message(Exchange):
    """A message of every rank for the last one: torch's recorder has no messages of gloo's."""

    label = "message"

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        rank, last = dist.get_rank(), dist.get_world_size() - 1
        # By a number of their own, so that who went astray receives none of them.
        operations = [dist.P2POp(dist.isend, torch.ones(5), last, tag=1)]
        if rank == last:
            operations = [dist.P2POp(dist.irecv, torch.ones(5), r, tag=1) for r in range(last)]
        for work in dist.batch_isend_irecv(operations):
            work.wait()


class InOrder(Exchange):
    """Waits for the one that it began first, after another."""

    label = "in-order"

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        works = [dist.all_reduce(tensors[0], async_op=True)]
        works.append(dist.broadcast(tensors[1], src=0, async_op=True))
        works[0].wait()


class Future(Exchange):
    """Waits for what stands for the work, which nobody holds any more."""

    label = "future"

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        work: Any = dist.all_reduce(tensors[0], async_op=True)
        future = work.get_future()
        del work
        future.wait()


class OtherThread(Exchange):
    """Waits for a thread that waits."""

    label = "other-thread"

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        work: Any = dist.all_reduce(tensors[0], async_op=True)
        thread = threading.Thread(target=work.wait)
        thread.start()
        thread.join()


class OtherGroup(Exchange):
    """Gathers along another dimension, for which torch itself waits, after a sum over all ranks."""

    label = "other-group"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        self.group: Any = dist.new_group(list(range(context.world_size)))
        return super().wrap(model, units, context)

    def exchange(self, tensors: list[torch.Tensor]) -> None:
        _finish(functional.all_gather_tensor(torch.ones(2, 2), 1, self.group))


def _everybody() -> dist.ProcessGroup:
    group = dist.group.WORLD
    assert group is not None
    return group


def _finish(tensor: torch.Tensor) -> None:
    functional.wait_tensor(tensor)


def _kinds() -> list[type[Strategy]]:
    bases: dict[type[Strategy], tuple[str, ...]] = dict.fromkeys(
        (Ddp, Fsdp1, Fsdp2), ("forward", "backward", "read")
    )
    bases |= dict.fromkeys(Exchange.__subclasses__(), ("read",))
    return [
        type(
            f"{base.__name__}{moment.title()}",
            (Astray, base),
            {
                "name": f"astray-{moment}-{vars(base).get('label', base.name)}",
                "moment": moment,
                "title": Astray.title,
            },
        )
        for base, moments in bases.items()
        for moment in moments
    ]


ALL = _kinds()
