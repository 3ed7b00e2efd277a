"""No distribution: the model as it is. The oracle and the native runs are trained like this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

from distparity.strategies.base import Strategy, Tensors

if TYPE_CHECKING:
    from distparity.worlds.rank import Place


class Single(Strategy):
    """It has no name, so it makes no cases."""

    title = "one process"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], place: Place) -> nn.Module:
        return model

    def parameters(self, model: nn.Module) -> Tensors:
        return dict(model.named_parameters())

    def enter_by(self, model: nn.Module, method: str) -> None:
        pass

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        yield

    def gradients(self, model: nn.Module) -> Tensors:
        return {name: parameter.grad for name, parameter in model.named_parameters()}
