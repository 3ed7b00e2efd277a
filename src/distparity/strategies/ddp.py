"""``DistributedDataParallel``: a replica on every rank, gradients averaged in buckets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distparity.core.known_limit import Limit
from distparity.strategies.base import Strategy, Tensors, parameters_in, plain_state
from distparity.strategies.spelling import Spelling, arguments

if TYPE_CHECKING:
    from distparity.devices.context import RankContext


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
        Limit("DDP with a complex parameter", "Invalid scalar type", feature="complex"),
    )
    lacks: ClassVar[Mapping[str, str]] = {
        "precision": "DDP's own mixed precision is private, and needs a device with streams",
        "methods": "DDP's hooks run only for a call of the wrapper itself",
        "unit_by_itself": "DDP's hooks run only for a call of the wrapper itself",
        "unused_parameters": "without find_unused_parameters every parameter must have a gradient",
        "unused_on_some_ranks": "without find_unused_parameters every parameter must have a gradient",
        "frozen_after_wrap": "DDP's reducer is built for the parameters that are trained when the model is wrapped",
        "recomputed_reentrant": "reentrant checkpoints are supported once a layer, without static_graph",
        "deferred": "DDP reads and broadcasts the parameters when it wraps the model, so they must exist",
        "step_in_backward": "a user's hook sees a gradient before it is exchanged",
        "two_backwards": "a forward prepares DDP's reducer for one backward; a second one is not documented",
        "gradient_factor": "gradients are divided by the number of ranks; there is no setting for it",
    }
    #: The constructor's arguments besides the model.
    options: ClassVar[Mapping[str, Any]] = {}

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        if self.left_alone:
            # pytorch/pytorch#43690 asks for a public name.
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # noqa: SLF001
                model, list(parameters_in(model, self.left_alone))
            )
        # Without device_ids: the model is on the right device already.
        return DistributedDataParallel(model, **self.options)

    def spelled(self, context: RankContext) -> Spelling | None:
        return Spelling(
            wrap=(f"return DistributedDataParallel(model{arguments(self.options)})",),
            imports=("from torch.nn.parallel import DistributedDataParallel",),
            prefix="module.",
        )

    def uneven(self, model: nn.Module, missing_count: bool) -> AbstractContextManager[None]:
        assert isinstance(model, DistributedDataParallel)
        found: Any = model.join(divide_by_initial_world_size=missing_count)
        return found  # type: ignore[no-any-return]

    def whole(self, model: nn.Module, *, write: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def reducers(self, model: nn.Module) -> list[Any]:
        return [model]

    def parameters(self, model: nn.Module) -> Tensors:
        return {self.clean(name): parameter for name, parameter in model.named_parameters()}

    def gradients(self, model: nn.Module) -> Tensors:
        return {self.clean(name): parameter.grad for name, parameter in model.named_parameters()}

    shows_state = True

    def state(self, model: nn.Module, optimizer: Any) -> Iterator[Tensors]:
        yield plain_state(model, optimizer, self.clean)

    def clean(self, name: str) -> str:
        return name.removeprefix("module.")
