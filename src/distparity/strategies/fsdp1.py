"""``FullyShardedDataParallel``: parameters, gradients and optimizer state sharded, as flat tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import MixedPrecision
from torch.distributed.fsdp.wrap import CustomPolicy

from distparity.core.known_limit import Limit
from distparity.strategies._meshes import mesh_lines
from distparity.strategies._shards import Layout, learn
from distparity.strategies.base import (
    Pending,
    Strategy,
    Tensors,
    parameters_in,
    state_keys,
    state_of,
)
from distparity.strategies.spelling import Spelling, Words, arguments

if TYPE_CHECKING:
    from distparity.devices.context import RankContext


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
        Limit("FSDP of several dtypes in a unit", "uniform dtype", feature="several_dtypes"),
        Limit("FSDP with a complex parameter", "Cannot flatten integer dtype", feature="complex"),
        Limit(
            "FSDP with frozen and trained parameters in a unit",
            r"uniform `requires_grad`|both parameters with requires_grad=True and False",
            feature="frozen_in_unit",
        ),
    )
    lacks: ClassVar[Mapping[str, str]] = {
        "begins_with_rank_0": "sync_module_states is off by default",
        "methods": "only forward gathers parameters; other methods see shards",
        "unused_in_unit": "a unit's gradients are one tensor, which is zero where there should be no gradient",
        "step_in_backward": "a user's hook sees a gradient before it is exchanged",
        "two_backwards": "a forward prepares FSDP's units for one backward; a second one is not documented",
        "second_order": '"FSDP does not work with double backwards", by its documentation',
        "groups_in_unit": "a unit's parameters are one flat tensor, which is in one parameter group",
        "tied_across_units": '"limited support for shared parameters": only within one unit',
        "two_parents": "running a submodule that is contained in an FSDP instance is not supported",
        "gradient_factor": "there is no documented setting for the divisor of gradients",
        "uneven_batches": "FSDP is not Joinable: every rank must make the same steps",
        "compiles_whole": "use_orig_params=True is required for torch.compile",
        "frozen_later_in_unit": "a unit's parameters are one flat tensor, which is frozen as a whole",
        "not_elementwise": "the optimizer sees parts of flat tensors, and looks at whole matrices",
    }

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        kept = [model.get_submodule(name) for name in self.kept_precise]

        def policy(module: nn.Module) -> bool | dict[str, Any]:
            if any(module is one for one in kept):
                return {"mixed_precision": None}
            return any(module is unit for unit in units)

        return FSDP(
            model,
            auto_wrap_policy=CustomPolicy(policy),
            use_orig_params=self.use_orig_params,
            device_id=context.device,
            mixed_precision=self._mixed_precision(),
            ignored_states=self._ignored(model),
            **self.options(context),
        )

    def spelled(self, context: RankContext) -> Spelling | None:
        options = self.options(context)
        ranks = options.pop("device_mesh", None)
        more = {"use_orig_params": self.use_orig_params, "device_id": Words("device")}
        more |= options | ({} if ranks is None else {"device_mesh": Words("mesh")})
        return Spelling(
            wrap=(
                *mesh_lines(ranks),
                "policy = CustomPolicy(lambda module: any(module is unit for unit in units))",
                f"return FSDP(model, auto_wrap_policy=policy{arguments(more)})",
            ),
            imports=(
                "from torch.distributed.fsdp import FullyShardedDataParallel as FSDP",
                "from torch.distributed.fsdp.wrap import CustomPolicy",
                *(
                    f"from torch.distributed.fsdp import {type(one).__name__}"
                    for one in options.values()
                    if type(one).__module__.startswith("torch.distributed.fsdp")
                ),
            ),
            whole="FSDP.summon_full_params(model, writeback=False"
            f"{', with_grads=True' if self.use_orig_params else ''})",
            gradients=self.use_orig_params,
            prefix="_fsdp_wrapped_module.",
            clip="model.clip_grad_norm_({norm}, {kind})",
        )

    def _ignored(self, model: nn.Module) -> list[Any] | None:
        """The arguments for what to ignore: modules here, parameters with ``use_orig_params``."""
        if self.use_orig_params:
            return list(parameters_in(model, self.left_alone).values()) or None
        return [model.get_submodule(name) for name in self.left_alone] or None

    def whole(self, model: nn.Module, *, write: bool) -> AbstractContextManager[None]:
        found: Any = FSDP.summon_full_params(model, writeback=write)
        return found  # type: ignore[no-any-return]

    def _mixed_precision(self) -> MixedPrecision | None:
        if self.precision is None:
            return None
        return MixedPrecision(
            param_dtype=self.precision.compute,
            reduce_dtype=self.precision.reduce,
            buffer_dtype=self.precision.buffer,
        )

    def options(self, context: RankContext) -> dict[str, Any]:
        """The constructor's arguments besides the units, ``use_orig_params`` and the device."""
        return {}

    def scaler(self, context: RankContext, scale: float) -> Any:
        from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

        return ShardedGradScaler(context.device.type, init_scale=scale, growth_interval=10**6)

    def clip(self, model: nn.Module, norm: float, kind: float = 2.0) -> torch.Tensor:
        assert isinstance(model, FSDP)
        return model.clip_grad_norm_(norm, kind)

    def parameters(self, model: nn.Module) -> Pending:
        shards = [parameter.detach() for parameter in model.parameters()]
        return self._layout(model).keep(shards, lambda found: found)

    def gradients(self, model: nn.Module) -> Pending:
        shards = []
        for parameter in model.parameters():
            # A frozen parameter next to trained ones has a gradient of zeros.
            gradient = parameter.grad if parameter.requires_grad else None
            shards.append(torch.full_like(parameter, torch.nan) if gradient is None else gradient)
        return self._layout(model).keep(shards, _present)

    shows_state = True

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Pending]:
        for key in state_keys(optimizer):
            shards = []
            for parameter in model.parameters():
                value = state_of(optimizer, parameter, key)
                shards.append(torch.full_like(parameter, torch.nan) if value is None else value)
            yield self._layout(model).keep(shards, partial(_there, key))

    def _layout(self, model: nn.Module) -> Layout:
        if model not in _LAYOUTS:
            _LAYOUTS[model] = learn(model, lambda: unsharded(model))
        return _LAYOUTS[model]

    def clean(self, name: str) -> str:
        return clean(name)


class Fsdp1OrigParams(Fsdp1):
    name = "fsdp1_orig_params"
    title = "FullyShardedDataParallel(use_orig_params=True)"
    tier: ClassVar[str] = "core"
    use_orig_params = True
    lacks: ClassVar[Mapping[str, str]] = {
        feature: reason
        for feature, reason in Fsdp1.lacks.items()
        if feature not in ("groups_in_unit", "compiles_whole", "frozen_later_in_unit")
    }


#: The layout of each model's parameters, which is found once and does not change.
_LAYOUTS: WeakKeyDictionary[nn.Module, Layout] = WeakKeyDictionary()


def _present(found: Tensors) -> Tensors:
    # A gradient of only NaN means that there was none; a real gradient of NaN is wrong in any case.
    return {
        name: None if value is not None and value.numel() and value.isnan().all() else value
        for name, value in found.items()
    }


def _there(key: str, found: Tensors) -> Tensors:
    return {f"{name}.{key}": value for name, value in _present(found).items() if value is not None}


def unsharded(model: nn.Module) -> Tensors:
    """The full parameters, gathered by FSDP itself."""
    with FSDP.summon_full_params(model, writeback=False):
        return {
            clean(name): parameter.detach().clone() for name, parameter in model.named_parameters()
        }


def unsharded_gradients(model: nn.Module) -> Tensors:
    """The full gradients, gathered by FSDP itself, with ``use_orig_params``."""
    with FSDP.summon_full_params(model, writeback=False, with_grads=True):
        return {clean(name): _gradient(parameter) for name, parameter in model.named_parameters()}


def clean(name: str) -> str:
    """A parameter's name before FSDP wrapped its module."""
    return name.replace("_fsdp_wrapped_module.", "")


def _gradient(parameter: nn.Parameter) -> torch.Tensor | None:
    """The gradients that the optimizer sees: zeros for a frozen parameter next to trained ones."""
    if parameter.grad is None or not parameter.requires_grad:
        return None
    return parameter.grad.clone()
