"""``FullyShardedDataParallel``: parameters, gradients and optimizer state sharded, as flat tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy

from distparity.limit import Limit
from distparity.strategies.base import Strategy, Tensors

if TYPE_CHECKING:
    from distparity.worlds.rank import Place


class Fsdp1(Strategy):
    name = "fsdp1"
    title = "FullyShardedDataParallel"
    tier: ClassVar[str] = "core"
    use_orig_params: ClassVar[bool] = False
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="FSDP.clip_grad_norm_ of float64 gradients",
            answer=r"convertible without narrowing",
            dtype="float64",
            feature="clip_norm",
        ),
    )
    lacks: ClassVar[Mapping[str, str]] = {
        "begins_with_rank_0": "sync_module_states is off by default, and needs an accelerator",
        "methods": "only forward gathers parameters; other methods see shards",
    }

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], place: Place) -> nn.Module:
        policy = functools.partial(
            lambda_auto_wrap_policy, lambda_fn=lambda module: any(module is unit for unit in units)
        )
        return FSDP(
            model,
            auto_wrap_policy=policy,
            use_orig_params=self.use_orig_params,
            device_id=place.device,
            **self.options(place),
        )

    def options(self, place: Place) -> dict[str, Any]:
        """What the constructor is told beyond the units, ``use_orig_params`` and the device."""
        return {}

    def scaler(self, place: Place, scale: float) -> Any:
        from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

        return ShardedGradScaler(place.device.type, init_scale=scale, growth_interval=10**6)

    def clip(self, model: nn.Module, norm: float, kind: float = 2.0) -> None:
        assert isinstance(model, FSDP)
        model.clip_grad_norm_(norm, kind)

    def parameters(self, model: nn.Module) -> Tensors:
        with FSDP.summon_full_params(model, writeback=False):
            return {
                self.clean(name): parameter.detach().clone()
                for name, parameter in model.named_parameters()
            }

    def gradients(self, model: nn.Module) -> Tensors:
        # ``summon_full_params(with_grads=True)`` refuses flat parameters. So the local shards of
        # the gradients take the place of those of the parameters for a moment, and the unsharding
        # that is there for parameters brings the gradients together.
        flat = list(model.parameters())
        kept = [parameter.detach().clone() for parameter in flat]
        with torch.no_grad():
            for parameter in flat:
                if parameter.grad is None:
                    parameter.fill_(torch.nan)
                else:
                    parameter.copy_(parameter.grad)
        # What is nothing but NaN had no gradient; if its gradient was that, it is wrong either way.
        gradients: Tensors = {
            name: None if value is not None and value.numel() and value.isnan().all() else value
            for name, value in self.parameters(model).items()
        }
        with torch.no_grad():
            for parameter, value in zip(flat, kept, strict=True):
                parameter.copy_(value)
        return gradients

    def clean(self, name: str) -> str:
        return name.replace("_fsdp_wrapped_module.", "")


class Fsdp1OrigParams(Fsdp1):
    name = "fsdp1_orig_params"
    title = "FullyShardedDataParallel(use_orig_params=True)"
    tier: ClassVar[str] = "core"
    use_orig_params = True

    def gradients(self, model: nn.Module) -> Tensors:
        with FSDP.summon_full_params(model, writeback=False, with_grads=True):
            return {
                self.clean(name): None if parameter.grad is None else parameter.grad.clone()
                for name, parameter in model.named_parameters()
            }
