"""``fully_shard`` used so that the order of streams matters more: for the selection ``order``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict

from distparity.core.known_limit import Limit
from distparity.strategies.fsdp2 import Fsdp2
from distparity.strategies.fsdp2_variants import Fsdp2HsdpNx1

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch

_HOOK = Limit(
    fact="fully_shard with an all-reduce hook", answer="set_all_reduce_hook", before=(2, 6)
)


def _touch(gradient: torch.Tensor) -> None:
    """A hook that reads and writes a gradient, and leaves it as it is."""
    gradient.mul_(1)


class Fsdp2AllReduceHook(Fsdp2):
    name = "fsdp2_all_reduce_hook"
    title = "fully_shard, set_all_reduce_hook on a stream of its own"
    tier = "ordered"
    limits: ClassVar[tuple[Limit, ...]] = (_HOOK, *Fsdp2.limits)

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        wrapped = super().wrap(model, units, context)
        # The CPU has no streams.
        kind = context.device.type
        more = {} if kind == "cpu" else {"stream": torch.Stream(device=context.device)}
        for unit in (*units, wrapped):
            unit.set_all_reduce_hook(_touch, **more)  # type: ignore[operator]
        return wrapped


class Fsdp2HsdpAllReduceHook(Fsdp2HsdpNx1):
    name = "fsdp2_hsdp_all_reduce_hook"
    title = "fully_shard on a 2-D mesh of replicas, set_all_reduce_hook"
    tier = "ordered"
    limits: ClassVar[tuple[Limit, ...]] = (_HOOK, *Fsdp2.limits)

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        wrapped = super().wrap(model, units, context)
        for unit in (*units, wrapped):
            unit.set_all_reduce_hook(_touch)  # type: ignore[operator]
        return wrapped


class Fsdp2UnshardAsync(Fsdp2):
    name = "fsdp2_unshard_async"
    title = "fully_shard, unshard(async_op=True) of all units before each forward"
    tier = "ordered"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(fact="fully_shard, unshard(async_op=True)", answer="async_op", before=(2, 5)),
        *Fsdp2.limits,
    )

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        wrapped = super().wrap(model, units, context)

        def unshard(*_: Any) -> None:
            # The units wait for it, each in its own forward.
            for unit in units:
                unit.unshard(async_op=True)  # type: ignore[operator]

        wrapped.register_forward_pre_hook(unshard)
        return wrapped


class Fsdp2ActivationsOnCpu(Fsdp2):
    name = "fsdp2_activations_on_cpu"
    title = "fully_shard, activations kept in pinned memory of the host (save_on_cpu)"
    tier = "ordered"

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
        kind = batch[0].device.type

        def offloaded(model: nn.Module, batch: Batch) -> Iterable[torch.Tensor]:
            with save_on_cpu(pin_memory=kind != "cpu", device_type=kind):
                return list(losses(model, batch))

        return super().learn(offloaded, model, batch, weight, turn, scale=scale)


class Fsdp2CheckpointAsync(Fsdp2):
    """What it writes must be the state at the time of the call, whatever happens to the model next."""

    name = "fsdp2_checkpoint_async"
    title = "fully_shard, a checkpoint written by async_save while the parameters change"
    tier = "ordered"
    needs: ClassVar[Mapping[str, str]] = {
        "reload_checkpoint": "nothing is saved to disk while training goes on"
    }

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> None:
        state = get_state_dict(model, optimizer)
        found = {"model": state[0], "optimizer": state[1]}
        # Its ranks talk to each other in a thread, by a backend for the host.
        host = dist.new_group(backend="gloo")
        written: Any = checkpoint.async_save(found, checkpoint_id=folder, process_group=host)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(torch.nan)
        # A newer torch returns two futures.
        getattr(written, "upload_completion", written).result()
        dist.destroy_process_group(host)
