"""``fully_shard``: every parameter a DTensor, sharded on dim 0."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from distparity.limit import Limit
from distparity.strategies._meshes import DeviceMesh, mesh
from distparity.strategies.base import Strategy, Tensors

if TYPE_CHECKING:
    from distparity.worlds.rank import Place


#: Since then it can be told to average by a sum and a division.
SUM_AND_DIVIDE = (2, 8)


def fsdp_module() -> Any:
    """The module that has ``fully_shard`` and what goes with it: public since 2.6."""
    from torch.distributed import fsdp

    if hasattr(fsdp, "fully_shard"):
        return fsdp
    return importlib.import_module("torch.distributed._composable.fsdp")


class Fsdp2(Strategy):
    name = "fsdp2"
    title = "fully_shard"
    defers = True
    tier: ClassVar[str] = "core"
    lacks: ClassVar[Mapping[str, str]] = {
        "begins_with_rank_0": "fully_shard takes each rank's own shard and broadcasts nothing",
        "second_order": "a backward within the forward gives up what the unit gathered for its own",
        "unused_on_some_ranks": "a rank reduces only the parameters that have a gradient there",
    }
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="fully_shard on a device other than cuda",
            answer=r"CUDA|NVIDIA driver",
            before=(2, 5),
            except_device="cuda",
        ),
        Limit(
            fact="fully_shard on cpu",
            # 2.6 has a stream for the CPU, of another kind than it then uses.
            answer=r"CUDA|NVIDIA driver|accelerator|'Stream' object has no attribute",
            before=(2, 7),
            device="cpu",
        ),
        Limit(
            fact="fully_shard where there is no ReduceOp.AVG",
            answer=r"ReduceOp|AVG",
            before=SUM_AND_DIVIDE,
            without="AVG",
        ),
        Limit("fully_shard of a sparse gradient", "[Ss]parse", feature="sparse_gradient"),
        Limit("SyncBatchNorm", "SyncBatchNorm", except_device="cuda", feature="sync_batch_norm"),
        Limit(
            "fully_shard of a 0-dimensional parameter",
            # 2.6 spells it "salar".
            "support sc?alar parameters|at least a 1-dimensional",
            feature="scalar",
        ),
        Limit("fully_shard of an empty parameter", "expects non-empty tensor", feature="empty"),
        Limit(
            "fully_shard of a parameter that is not contiguous",
            "non-contiguous parameters",
            feature="non_contiguous",
        ),
        Limit(
            "fully_shard of units that share a parameter",
            "is shared with a parameter",
            feature="tied_across_units",
        ),
    )

    def shard(self, place: Place) -> Callable[[nn.Module, bool], Any]:
        """What shards a module, given whether that is the root."""
        fully_shard, ranks = fsdp_module().fully_shard, self.mesh(place)
        rest = self._mixed_precision()
        return lambda module, root: fully_shard(
            module, mesh=ranks, **rest, **self.options(place, root)
        )

    def _mixed_precision(self) -> dict[str, Any]:
        if self.precision is None:
            return {}
        policy = fsdp_module().MixedPrecisionPolicy(
            param_dtype=self.precision.compute, reduce_dtype=self.precision.reduce
        )
        return {"mp_policy": policy}

    def mesh(self, place: Place) -> DeviceMesh:
        return mesh(place, (place.world_size,))

    def options(self, place: Place, root: bool) -> dict[str, Any]:
        """What ``fully_shard`` is told of a module, beside its mesh."""
        return {}

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], place: Place) -> nn.Module:
        shard = self.shard(place)
        for unit in units:
            shard(unit, False)
        shard(model, True)
        if "AVG" in place.kind.no_reductions:
            _sum_and_divide(model)
        return model

    def fill(self, model: nn.Module, state: dict[str, Any], place: Place) -> None:
        model.to_empty(device=place.device)
        super().fill(model, state, place)

    def enter_by(self, model: nn.Module, method: str) -> None:
        fsdp_module().register_fsdp_forward_method(model, method)

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
        yield
        model.set_requires_gradient_sync(True)  # type: ignore[operator]

    def parameters(self, model: nn.Module) -> Tensors:
        return {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}

    def gradients(self, model: nn.Module) -> Tensors:
        return {name: whole(parameter.grad) for name, parameter in model.named_parameters()}


def _sum_and_divide(model: Any) -> None:
    """Have the root and the units average gradients without ``ReduceOp.AVG``, where torch can."""
    for module in model.modules():
        if hasattr(module, "set_force_sum_reduction_for_comms"):
            module.set_force_sum_reduction_for_comms(enable=True)


def whole(tensor: Any) -> torch.Tensor | None:
    """The whole of a DTensor, gathered from all ranks; a plain tensor as it is."""
    full: torch.Tensor | None = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full
