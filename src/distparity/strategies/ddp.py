"""``DistributedDataParallel``: a replica on every rank, gradients averaged in buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distparity.limit import Limit
from distparity.strategies.base import Strategy, Tensors

if TYPE_CHECKING:
    from distparity.worlds.rank import Place


class Ddp(Strategy):
    name = "ddp"
    title = "DistributedDataParallel"
    tier: ClassVar[str] = "core"
    replicates = True
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            "SyncBatchNorm under DDP",
            "SyncBatchNorm",
            except_device="cuda",
            feature="sync_batch_norm",
        ),
    )
    lacks: ClassVar[Mapping[str, str]] = {
        "precision": "DDP's own mixed precision is private, and needs a device with streams",
        "methods": "only a call of the wrapper itself goes by way of DDP's hooks",
        "unused_parameters": "without find_unused_parameters every parameter must have a gradient",
        "unused_on_some_ranks": "without find_unused_parameters every parameter must have a gradient",
        "frozen_after_wrap": "DDP's reducer is made for what is trained when the model is wrapped",
        "recomputed_reentrant": "backwards within the backward are supported with static_graph only",
        "deferred": "DDP reads its parameters when it wraps, and broadcasts them: there must be some",
        "step_in_backward": "a hook of the user's sees a gradient before it was exchanged",
        "two_backwards": "a forward prepares DDP's reducer for one backward; no second is documented",
    }
    #: What the constructor is told beyond the model.
    options: ClassVar[Mapping[str, Any]] = {}

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], place: Place) -> nn.Module:
        # Without device_ids: the model is where it belongs, on every kind of device.
        return DistributedDataParallel(model, **self.options)

    def reducers(self, model: nn.Module) -> list[Any]:
        return [model]

    def parameters(self, model: nn.Module) -> Tensors:
        return {self.clean(name): parameter for name, parameter in model.named_parameters()}

    def gradients(self, model: nn.Module) -> Tensors:
        return {self.clean(name): parameter.grad for name, parameter in model.named_parameters()}

    def clean(self, name: str) -> str:
        return name.removeprefix("module.")
