"""No distribution: the model as it is. The oracle and the reference runs are trained like this."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.func import functional_call

from distparity.strategies.base import Strategy, Tensors, plain_state

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Scenario


class Single(Strategy):
    """It has no name, so it makes no cases."""

    title = "one process"
    alone = True

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        return model

    def parameters(self, model: nn.Module) -> Tensors:
        return dict(model.named_parameters())

    def enter_by(self, model: nn.Module, method: str) -> None:
        pass

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        yield

    def uneven(self, model: nn.Module, missing_count: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def whole(self, model: nn.Module, *, write: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def average(self, model: nn.Module, modules: Collection[str]) -> None:
        pass

    def fill(self, model: nn.Module, state: dict[str, Any], context: RankContext) -> None:
        pass

    def gradients(self, model: nn.Module) -> Tensors:
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        return {
            f"{name}.{key}": value
            for name, parameter in model.named_parameters()
            for key, value in optimizer.state.get(parameter, {}).items()
            if isinstance(value, torch.Tensor)
        }

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Tensors]:
        yield plain_state(model, optimizer, self.clean)


class Reference(Single):
    """One process that rounds as ranks do: in the units' arithmetic and in the exchange of gradients.

    ``reduce_dtype`` is the dtype in which ``ranks`` ranks exchange gradients, if not their own dtype.
    """

    def __init__(self, reduce_dtype: torch.dtype | None, ranks: int) -> None:
        self.reduced_in = reduce_dtype
        self.ranks = ranks
        #: How many times in a step a rank sends its gradients.
        self.sends = 1
        self.sums: dict[nn.Parameter, torch.Tensor] = {}
        self.exchanged: dict[nn.Parameter, torch.Tensor] = {}

    def suit(self, scenario: Scenario) -> Strategy:
        suited = super().suit(scenario)
        assert isinstance(suited, Reference)
        suited.sends = 1 if scenario.exchange_last_only else scenario.micro_batches
        return suited

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        self.trained = list(model.parameters())
        if self.precision is not None and self.precision.compute is not None:
            _compute_in(model, self.precision.compute, self.kept_precise, self.precision.buffer)
        return model

    def backward(self, loss: torch.Tensor, number: int, count: int, *, keep: bool = False) -> None:
        loss.backward(retain_graph=keep)
        pieces = count // self.ranks // self.sends
        if keep or self.reduced_in is None or (number + 1) % pieces:
            return
        # Here a rank would send its gradients: with each micro-batch, or with the last of its rows.
        for parameter in self.trained:
            if parameter.grad is not None:
                out = parameter.grad.to(self.reduced_in)
                known = self.sums.get(parameter)
                self.sums[parameter] = out if known is None else known + out
                parameter.grad = None
        if (number + 1) % (pieces * self.ranks):
            return
        # All ranks have sent: what they exchanged is added up in the parameters' dtype.
        for parameter, total in self.sums.items():
            more, known = total.to(parameter.dtype), self.exchanged.get(parameter)
            self.exchanged[parameter] = more if known is None else known + more
        self.sums = {}
        if number == count - 1:
            for parameter, total in self.exchanged.items():
                parameter.grad = total
            self.exchanged = {}


def _compute_in(
    model: nn.Module, dtype: torch.dtype, kept: tuple[str, ...], buffers: torch.dtype | None
) -> None:
    """Make a forward cast parameters and inputs first, as a sharded unit does.

    Modules in ``kept`` are not cast. Buffers are cast once, and keep that dtype.
    """
    right, inside = model.forward, False
    precise = tuple(f"{name}." for name in kept)

    def forward(*words: torch.Tensor) -> Any:
        nonlocal inside
        if inside:
            return right(*words)
        for buffer in model.buffers() if buffers is not None else ():
            if buffer.is_floating_point():
                buffer.data = buffer.to(buffers)
        cast = {
            name: parameter if name.startswith(precise) else parameter.to(dtype)
            for name, parameter in model.named_parameters()
        }
        inside = True
        try:
            return functional_call(model, cast, tuple(word.to(dtype) for word in words))
        finally:
            inside = False

    model.forward = forward
