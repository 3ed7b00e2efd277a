"""Strategies that are wrong on purpose; ``--include wrong_strategies`` makes cases of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from distparity.devices.context import RankContext
from distparity.strategies import Tensors
from distparity.strategies.ddp import Ddp


class Summed(Ddp):
    """Gradients are summed over the ranks and never divided."""

    name = "wrong_sum"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        # Unannotated: torch compares annotations with its own classes.
        def hook(_, bucket):  # type: ignore[no-untyped-def]
            work = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
            return work.then(lambda future: future.value()[0])

        wrapped = super().wrap(model, units, context)
        wrapped.register_comm_hook(None, hook)  # type: ignore[operator]
        return wrapped


class Unsynchronised(Ddp):
    """Gradients are not exchanged at all."""

    name = "wrong_local"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        return nn.ModuleDict({"module": model})["module"]

    def clean(self, name: str) -> str:
        return name


class OneForward(Ddp):
    """The second call of a unit contributes no gradient to the unit's parameters."""

    name = "wrong_second_forward"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        for unit in units:
            _forget_second_call(model, unit)
        return super().wrap(model, units, context)


def _forget_second_call(model: nn.Module, unit: nn.Module) -> None:
    calls = 0
    right: Callable[[torch.Tensor], torch.Tensor] = unit.forward

    def start(*_: Any) -> None:
        nonlocal calls
        calls = 0

    def once(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            return right(x)
        frozen = {name: p.detach() for name, p in unit.named_parameters()}
        return nn.functional.linear(x, frozen["weight"], frozen["bias"])

    model.register_forward_pre_hook(start)
    unit.forward = once


class Stale(Ddp):
    """Every forward sees the parameters of before the last optimizer step."""

    name = "wrong_stale"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        before = [p.detach().clone() for p in model.parameters()]

        def lag(*_: Any) -> None:
            for index, parameter in enumerate(model.parameters()):
                now = parameter.detach().clone()
                parameter.data.copy_(before[index])
                before[index] = now

        def catch_up(*_: Any) -> None:
            for parameter, now in zip(model.parameters(), before, strict=True):
                parameter.data.copy_(now)

        model.register_forward_pre_hook(lag)
        model.register_forward_hook(catch_up)
        return super().wrap(model, units, context)


class Truncated(Ddp):
    """The last element of every gradient is lost, as a wrong padding loses it."""

    name = "wrong_padding"

    def gradients(self, model: nn.Module) -> Tensors:
        found = {name: g.clone() for name, g in super().gradients(model).items() if g is not None}
        for gradient in found.values():
            gradient.view(-1)[-1] = 0
        return dict(found)
