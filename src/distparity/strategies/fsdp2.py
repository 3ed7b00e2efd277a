"""``fully_shard``: every parameter a DTensor, sharded on dim 0."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn

from distparity.core.known_limit import Limit
from distparity.strategies._dtensor_state import keep_state
from distparity.strategies._meshes import DeviceMesh, mesh, mesh_lines
from distparity.strategies.base import Pending, Strategy, Tensors, parameters_in
from distparity.strategies.spelling import Spelling, arguments

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Scenario


#: Since this release it can average by a sum and a division.
SUM_AND_DIVIDE = (2, 8)


def fsdp_module() -> Any:
    """The module with ``fully_shard`` and its companions: public since 2.6."""
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
        # It raises: the gathered storage is freed before the second backward.
        "second_order": "like FSDP, it frees the gathered parameters in the first of two backwards",
        "unused_on_some_ranks": "a rank reduces only the parameters that have a gradient there",
        "buffer_precision": "MixedPrecisionPolicy has no dtype for buffers",
        "uneven_batches": "fully_shard has no join: every rank must make the same steps",
        "writes_whole_parameters": "reshard frees whole parameters and what was written to them",
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
            # 2.6 has a stream for the CPU, of another type than it expects.
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
        Limit(
            "fully_shard of several dtypes in a unit",
            "uniform original parameter dtype",
            feature="several_dtypes",
        ),
        Limit("fully_shard of a complex parameter", "Invalid scalar type", feature="complex"),
        Limit(
            fact="fully_shard that leaves parameters alone",
            answer="ignored_params",
            before=(2, 7),
            feature="left_alone",
        ),
        Limit(
            fact="fully_shard with a divisor of its own",
            answer="PREMUL_SUM|divide_factor",
            before=SUM_AND_DIVIDE,
            feature="gradient_factor",
        ),
    )

    def groups(self, units: Sequence[nn.Module]) -> list[Any]:
        """The groups that are gathered together: units, or lists of units."""
        return list(units)

    def shard(self, context: RankContext, model: nn.Module) -> Callable[[Any, bool], Any]:
        """A function that applies ``fully_shard`` to the root of ``model``, a module or a list of modules."""
        fully_shard, ranks = fsdp_module().fully_shard, self.mesh(context)
        kept = [model.get_submodule(name) for name in self.kept_precise]
        rest = self.ignored(model)
        mixed = self._mixed_precision()

        def shard(module: Any, root: bool) -> Any:
            precise = any(module is one for one in kept)
            more = {**rest, **({} if precise else mixed), **self.options(context, root)}
            return fully_shard(module, mesh=ranks, **more)

        return shard

    def ignored(self, model: nn.Module) -> dict[str, Any]:
        """The arguments for the parameters to ignore."""
        alone = parameters_in(model, self.left_alone)
        return {"ignored_params": set(alone.values())} if alone else {}

    def optimizer(self, scenario: Scenario, model: nn.Module) -> torch.optim.Optimizer:
        made = super().optimizer(scenario, model)
        alone = set(self.ignored(model).get("ignored_params", ()))
        # On accelerators a step is one operation over a list, which may not have tensors beside DTensors.
        for group in list(made.param_groups) if alone else ():
            plain = [one for one in group["params"] if one in alone]
            if plain and len(plain) < len(group["params"]):
                group["params"] = [one for one in group["params"] if one not in alone]
                made.add_param_group({**group, "params": plain})
        return made

    def _mixed_precision(self) -> dict[str, Any]:
        if self.precision is None:
            return {}
        policy = fsdp_module().MixedPrecisionPolicy(
            param_dtype=self.precision.compute, reduce_dtype=self.precision.reduce
        )
        return {"mp_policy": policy}

    def mesh(self, context: RankContext) -> DeviceMesh:
        return mesh(context, (context.world_size,))

    def options(self, context: RankContext, root: bool) -> dict[str, Any]:
        """The arguments of ``fully_shard`` for a module, besides the mesh."""
        return {}

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        shard = self.shard(context, model)
        for unit in self.groups(units):
            shard(unit, False)
        shard(model, True)
        if "AVG" in context.kind.no_reductions:
            _sum_and_divide(model)
        if self.gradient_factor != 1:
            _divide_by(model, self.mesh(context).size() / self.gradient_factor)
        return model

    def spelled(self, context: RankContext) -> Spelling | None:
        module = fsdp_module().__name__
        ways = [self.options(context, root) for root in (False, True)]
        if ways[0] != ways[1] or any(map(callable, ways[0].values())):
            return None
        policies = (type(one) for one in ways[0].values())
        return Spelling(
            wrap=(
                *mesh_lines(self.mesh(context)),
                "for module in [*units, model]:",
                f"    fully_shard(module, mesh=mesh{arguments(ways[0])})",
                *(_SUMS if "AVG" in context.kind.no_reductions else ()),
                "return model",
            ),
            imports=(
                f"from {module} import fully_shard",
                *(
                    f"from {module} import {one.__name__}"
                    for one in policies
                    if one.__module__.startswith("torch.")
                ),
            ),
            sync="model.set_requires_gradient_sync(last)",
            dtensors=True,
        )

    def fill(self, model: nn.Module, state: dict[str, Any], context: RankContext) -> None:
        model.to_empty(device=context.device)
        super().fill(model, state, context)

    def enter_by(self, model: nn.Module, method: str) -> None:
        fsdp_module().register_fsdp_forward_method(model, method)

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
        yield
        model.set_requires_gradient_sync(True)  # type: ignore[operator]

    @contextmanager
    def whole(self, model: nn.Module, *, write: bool) -> Iterator[None]:
        sharded: list[Any] = [one for one in model.modules() if hasattr(one, "unshard")]
        for one in sharded:
            one.unshard()
        yield
        for one in sharded:
            one.reshard()

    def parameters(self, model: nn.Module) -> Tensors:
        return {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}

    def gradients(self, model: nn.Module) -> Tensors:
        return {name: whole(parameter.grad) for name, parameter in model.named_parameters()}

    shows_state = True

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Pending]:
        yield keep_state(model, optimizer)


#: The lines of a program for :func:`_sum_and_divide`.
_SUMS = (
    "    if hasattr(module, 'set_force_sum_reduction_for_comms'):",
    "        module.set_force_sum_reduction_for_comms(True)",
)


def _divide_by(model: Any, divisor: float) -> None:
    """Make the root and the units divide the sum of gradients by this."""
    for module in model.modules():
        if hasattr(module, "set_gradient_divide_factor"):
            module.set_gradient_divide_factor(divisor)
        elif hasattr(module, "set_reduce_scatter_divide_factor"):
            module.set_reduce_scatter_divide_factor(divisor)
    if dist.get_backend() != "nccl":
        # Other backends have no reduction with a factor (``PREMUL_SUM``).
        _sum_and_divide(model)


def _sum_and_divide(model: Any) -> None:
    """Make the root and the units average gradients without ``ReduceOp.AVG``, if torch can."""
    for module in model.modules():
        if hasattr(module, "set_force_sum_reduction_for_comms"):
            module.set_force_sum_reduction_for_comms(enable=True)


def whole(tensor: Any) -> torch.Tensor | None:
    """The full tensor of a DTensor, gathered from all ranks; a plain tensor unchanged."""
    full: torch.Tensor | None = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full
