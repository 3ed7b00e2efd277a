"""``DistributedDataParallel``: a replica on every rank, gradients averaged in buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distparity.strategies.base import Strategy, Tensors

if TYPE_CHECKING:
    from distparity.worlds.rank import Place


class Ddp(Strategy):
    name = "ddp"
    title = "DistributedDataParallel"
    tier: ClassVar[str] = "core"
    replicates = True
    #: What the constructor is told beyond the model.
    options: ClassVar[Mapping[str, Any]] = {}
    lacks: ClassVar[Mapping[str, str]] = {
        "methods": "only a call of the wrapper itself goes by way of DDP's hooks",
    }

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], place: Place) -> nn.Module:
        # Without device_ids: the model is where it belongs, on every kind of device.
        return DistributedDataParallel(model, **self.options)

    def reducer(self, model: nn.Module) -> Any:
        return model

    def parameters(self, model: nn.Module) -> Tensors:
        return {self.clean(name): parameter for name, parameter in model.named_parameters()}

    def gradients(self, model: nn.Module) -> Tensors:
        return {self.clean(name): parameter.grad for name, parameter in model.named_parameters()}

    def clean(self, name: str) -> str:
        return name.removeprefix("module.")
