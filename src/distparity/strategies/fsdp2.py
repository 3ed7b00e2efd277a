"""``fully_shard``: every parameter a DTensor, sharded on dim 0."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from distparity.limit import Limit
from distparity.strategies.base import Strategy, Tensors

if TYPE_CHECKING:
    from distparity.worlds.rank import Place


#: Since then it can be told to average by a sum and a division.
SUM_AND_DIVIDE = (2, 8)


def _fsdp() -> Any:
    """The module in which this torch has ``fully_shard``: it became public in 2.6."""
    import torch.distributed.fsdp as public

    if hasattr(public, "fully_shard"):
        return public
    return importlib.import_module("torch.distributed._composable.fsdp")


class Fsdp2(Strategy):
    name = "fsdp2"
    title = "fully_shard"
    lacks: ClassVar[Mapping[str, str]] = {
        "begins_with_rank_0": "fully_shard takes each rank's own shard and broadcasts nothing",
    }
    limits = (
        Limit(
            fact="fully_shard on a device other than cuda",
            answer=r"CUDA|NVIDIA driver",
            before=(2, 5),
            except_device="cuda",
        ),
        Limit(
            fact="fully_shard on cpu",
            answer=r"CUDA|NVIDIA driver|accelerator",
            before=(2, 7),
            device="cpu",
        ),
        Limit(
            fact="fully_shard where there is no ReduceOp.AVG",
            answer=r"ReduceOp|AVG",
            before=SUM_AND_DIVIDE,
            without="AVG",
        ),
    )

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], place: Place) -> nn.Module:
        shard = _fsdp().fully_shard
        mesh = init_device_mesh(place.device.type, (place.world_size,))
        for unit in units:
            shard(unit, mesh=mesh)
        shard(model, mesh=mesh)
        if "AVG" in place.kind.no_reductions:
            _sum_and_divide(model)
        return model

    def enter_by(self, model: nn.Module, method: str) -> None:
        _fsdp().register_fsdp_forward_method(model, method)

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
        yield
        model.set_requires_gradient_sync(True)  # type: ignore[operator]

    def parameters(self, model: nn.Module) -> Tensors:
        return {name: _full(parameter.detach()) for name, parameter in model.named_parameters()}

    def gradients(self, model: nn.Module) -> Tensors:
        return {name: _full(parameter.grad) for name, parameter in model.named_parameters()}


def _sum_and_divide(model: Any) -> None:
    """Have the root and the units average gradients without ``ReduceOp.AVG``, where torch can."""
    for module in model.modules():
        if hasattr(module, "set_force_sum_reduction_for_comms"):
            module.set_force_sum_reduction_for_comms(enable=True)


def _full(tensor: Any) -> torch.Tensor | None:
    """The whole of a DTensor, gathered from all ranks; a plain tensor as it is."""
    full: torch.Tensor | None = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full
