"""``FullyShardedDataParallel``: parameters, gradients and optimizer state sharded, as flat tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import MixedPrecision
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
    defers = True
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="FSDP.clip_grad_norm_ of float64 gradients",
            answer=r"convertible without narrowing",
            dtype="float64",
            feature="clip_norm",
        ),
        Limit("FSDP of a unit with a sparse gradient", "[Ss]parse", feature="sparse_gradient"),
        Limit("SyncBatchNorm", "SyncBatchNorm", except_device="cuda", feature="sync_batch_norm"),
        Limit(
            "FSDP with a 0-dimensional parameter", "support sc?alar parameters", feature="scalar"
        ),
        Limit("FSDP with an empty parameter", "unsharded_start_idx", feature="empty"),
        Limit(
            "FSDP with frozen and trained parameters in a unit",
            "uniform `requires_grad`",
            feature="frozen_in_unit",
        ),
    )
    lacks: ClassVar[Mapping[str, str]] = {
        "begins_with_rank_0": "sync_module_states is off by default, and needs an accelerator",
        "methods": "only forward gathers parameters; other methods see shards",
        "unused_in_unit": "a unit's gradients are one tensor, and zero where there should be none",
        "step_in_backward": "a hook of the user's sees a gradient before it was exchanged",
        "two_backwards": "a forward prepares FSDP's units for one backward; no second is documented",
        "second_order": "a backward within the forward gives up what the unit gathered for its own",
        "groups_in_unit": "a unit's parameters are one flat tensor, and in one group",
        "tied_across_units": "units that share a parameter must be one unit",
        "two_parents": "a module inside a unit cannot be called from outside of it",
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
            mixed_precision=self._mixed_precision(),
            **self.options(place),
        )

    def _mixed_precision(self) -> MixedPrecision | None:
        if self.precision is None:
            return None
        return MixedPrecision(
            param_dtype=self.precision.compute, reduce_dtype=self.precision.reduce
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
    lacks: ClassVar[Mapping[str, str]] = {
        feature: reason for feature, reason in Fsdp1.lacks.items() if feature != "groups_in_unit"
    }

    def gradients(self, model: nn.Module) -> Tensors:
        with FSDP.summon_full_params(model, writeback=False, with_grads=True):
            return {
                self.clean(name): _gradient(parameter)
                for name, parameter in model.named_parameters()
            }


def _gradient(parameter: nn.Parameter) -> torch.Tensor | None:
    """What the optimizer sees: a frozen parameter is shown zeros beside trained ones."""
    if parameter.grad is None or not parameter.requires_grad:
        return None
    return parameter.grad.clone()
