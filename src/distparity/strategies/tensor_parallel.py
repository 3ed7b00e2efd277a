"""``parallelize_module``: every rank has a part of each layer, and all ranks the same rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)

from distparity.core.known_limit import Limit
from distparity.strategies._dtensor_state import keep_state
from distparity.strategies._meshes import (
    DeviceMesh,
    DTensor,
    Replicate,
    Shard,
    distribute_module,
    mesh,
    mesh_lines,
)
from distparity.strategies.base import Pending, Strategy, Tensors
from distparity.strategies.fsdp1 import Fsdp1OrigParams, unsharded, unsharded_gradients
from distparity.strategies.fsdp2 import Fsdp2, whole
from distparity.strategies.spelling import Spelling

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch, Scenario

_NO_PLAN = "the scenario does not say how to split its layers"


class Replicated(ParallelStyle):
    """A module that every rank has in full, with its parameters on the mesh like all others."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        # With the arguments that distribute_module passes, which may differ from its annotations.
        enter: Any = self._enter
        leave: Any = self._leave
        return distribute_module(module, device_mesh, input_fn=enter, output_fn=leave)

    def _enter(self, _: nn.Module, inputs: Any, ranks: DeviceMesh) -> Any:
        return tuple(
            DTensor.from_local(one, ranks, [Replicate()], run_check=False) for one in inputs
        )

    def _leave(self, _: nn.Module, output: Any, ranks: DeviceMesh) -> Any:
        return output.to_local()


class TensorParallel(Strategy):
    name = "tp"
    exchanges: ClassVar[bool] = False
    title = "parallelize_module: ColwiseParallel, RowwiseParallel"
    needs: ClassVar[Mapping[str, str]] = {"tensor_parallel": _NO_PLAN}
    cuts: ClassVar[Mapping[str, int]] = {"layers": 1}
    plan: Mapping[str, str]
    sequence_dim: int | None

    def suit(self, scenario: Scenario) -> Strategy:
        mine = copy.copy(self)
        mine.plan, mine.sequence_dim = scenario.tensor_parallel, scenario.sequence_dim
        return mine

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        ranks = self.mesh(context)
        plan = {
            name: self.style(word, model.get_submodule(name), ranks.size())
            for name, word in self.plan.items()
        }
        return parallelize_module(model, ranks, plan)

    def mesh(self, context: RankContext) -> DeviceMesh:
        """The ranks that share layers."""
        return mesh(context, (context.world_size,))

    def style(self, word: str, module: Any, ranks: int) -> ParallelStyle:
        """The parallel style for a word of :attr:`Scenario.tensor_parallel`."""
        styles: dict[str, Callable[[], ParallelStyle]] = {
            "split": partial(RowwiseParallel, input_layouts=Replicate()),
            # A local tensor does not know the sizes of the other ranks' uneven shards.
            "column": lambda: ColwiseParallel(use_local_output=module.weight.shape[0] % ranks == 0),
            "row": RowwiseParallel,
            "norm": Replicated,
            "head": partial(ColwiseParallel, output_layouts=Replicate()),
        }
        return styles[word]()

    #: How a program writes the style for a word.
    styles: ClassVar[Mapping[str, str]] = {
        "split": "RowwiseParallel(input_layouts=Replicate())",
        "row": "RowwiseParallel()",
        "head": "ColwiseParallel(output_layouts=Replicate())",
    }

    def spelled(self, context: RankContext) -> Spelling | None:
        words = set(self.plan.values())
        if not words <= {*self.styles}:
            return None
        used = "".join(self.styles[word] for word in sorted(words))
        kinds = [name for name in ("ColwiseParallel", "RowwiseParallel") if name in used]
        return Spelling(
            wrap=(
                *mesh_lines(self.mesh(context)),
                f"plan = {{{', '.join(f'{name!r}: {self.styles[word]}' for name, word in self.plan.items())}}}",
                "return parallelize_module(model, mesh, plan)",
            ),
            imports=(
                f"from torch.distributed.tensor.parallel import {', '.join([*kinds, 'parallelize_module'])}",
                *(
                    [f"from {Replicate.__module__} import Replicate"]
                    if "Replicate()" in used
                    else []
                ),
            ),
            no_sync="",
            dtensors=True,
            rows="t",
        )

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        return batch

    def rows_shared_by(self, context: RankContext) -> int:
        return context.world_size

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        # Ranks exchange activations; each rank computes its own gradients.
        yield

    def parameters(self, model: nn.Module) -> Tensors:
        return {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}

    def gradients(self, model: nn.Module) -> Tensors:
        return {name: whole(parameter.grad) for name, parameter in model.named_parameters()}

    shows_state: ClassVar[bool] = True

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterable[Pending]:
        yield keep_state(model, optimizer)


class SequenceParallelism(TensorParallel):
    name = "tp_sequence"
    title = "parallelize_module: SequenceParallel between split layers"
    needs: ClassVar[Mapping[str, str]] = {
        "tensor_parallel": _NO_PLAN,
        "sequence": "the scenario's activations have no dim that could be split instead",
    }

    def style(self, word: str, module: Any, ranks: int) -> ParallelStyle:
        assert self.sequence_dim is not None
        part = Shard(self.sequence_dim)
        styles: dict[str, Callable[[], ParallelStyle]] = {
            "split": partial(RowwiseParallel, input_layouts=Replicate(), output_layouts=part),
            "column": partial(ColwiseParallel, input_layouts=part),
            "row": partial(RowwiseParallel, output_layouts=part),
            "norm": partial(SequenceParallel, sequence_dim=self.sequence_dim),
            "head": partial(ColwiseParallel, input_layouts=part, output_layouts=Replicate()),
        }
        return styles[word]()


class LossParallelism(TensorParallel):
    name = "tp_loss"
    title = "parallelize_module: classes split, loss_parallel"
    needs: ClassVar[Mapping[str, str]] = {
        "tensor_parallel": _NO_PLAN,
        "head": "the scenario has no layer whose output is the classes of a cross entropy",
    }

    styles: ClassVar[Mapping[str, str]] = {
        **TensorParallel.styles,
        "head": "ColwiseParallel(use_local_output=False)",
    }

    def spelled(self, context: RankContext) -> Spelling | None:
        found = super().spelled(context)
        if found is None:
            return None
        imports = (*found.imports, "from torch.distributed.tensor.parallel import loss_parallel")
        return replace(found, within="loss_parallel()", imports=imports)

    def style(self, word: str, module: Any, ranks: int) -> ParallelStyle:
        if word == "head":
            return ColwiseParallel(use_local_output=False)
        return super().style(word, module, ranks)

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
        with self.within():
            share = super().learn(losses, model, batch, weight, turn, scale=scale)
        found = whole(share)
        assert found is not None
        return found

    def within(self) -> AbstractContextManager[Any]:
        """Within it, losses are of split classes."""
        return loss_parallel()


class _WithData(TensorParallel):
    """2-D: tensor parallel within some ranks, by default pairs, and data parallel between them.

    It has no name, so it makes no cases.
    """

    exchanges = True
    cuts: ClassVar[Mapping[str, int]] = {}
    least_ranks = 4
    ranks_multiple_of = 2

    def mesh(self, context: RankContext) -> DeviceMesh:
        return self.both(context)["tensor"]

    def shape(self, context: RankContext) -> tuple[int, int]:
        """How many ranks split the data, and how many split each layer."""
        return context.world_size // 2, 2

    def both(self, context: RankContext) -> DeviceMesh:
        return mesh(context, self.shape(context), ("data", "tensor"))

    def data(self, context: RankContext) -> DeviceMesh:
        return self.both(context)["data"]

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        data, tensor = self.shape(context)
        return tuple(one.chunk(data)[context.rank // tensor] for one in batch)

    def rows_shared_by(self, context: RankContext) -> int:
        return self.shape(context)[1]


class TensorParallelFsdp1(_WithData):
    name = "fsdp1_tp"
    title = "parallelize_module by 2 ranks, FullyShardedDataParallel over the others"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            "FSDP of layers that are split unevenly",
            r"shape '\[\d+\]' is invalid for input of size",
            feature="splits_unevenly",
        ),
        *Fsdp1OrigParams.limits,
    )
    lacks = Fsdp1OrigParams.lacks

    def attempt(self, context: RankContext, dtype: torch.dtype, features: Collection[str]) -> None:
        Fsdp1OrigParams().attempt(context, dtype, features)

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        split = super().wrap(model, units, context)
        return _Flat(self.data(context)).wrap(split, units, context)

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        with Fsdp1OrigParams().no_sync(model):
            yield

    def clip(self, model: nn.Module, norm: float, kind: float = 2.0) -> torch.Tensor:
        return Fsdp1OrigParams().clip(model, norm, kind)

    def clean(self, name: str) -> str:
        return Fsdp1OrigParams().clean(name)

    # Its state is of shards of shards, which only torch's own helpers gather: at the end.
    shows_state = False

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterable[Pending]:
        return ()

    def parameters(self, model: nn.Module) -> Tensors:
        return _whole(unsharded(model))

    def gradients(self, model: nn.Module) -> Tensors:
        return _whole(unsharded_gradients(model))


class TensorParallelFsdp2(_WithData):
    name = "fsdp2_tp"
    title = "parallelize_module by 2 ranks, fully_shard over the others"
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="fully_shard of layers that are split unevenly",
            answer="does not support uneven sharding",
            before=(2, 8),
            feature="splits_unevenly",
        ),
        *Fsdp2.limits,
    )
    lacks = Fsdp2.lacks

    def attempt(self, context: RankContext, dtype: torch.dtype, features: Collection[str]) -> None:
        Fsdp2().attempt(context, dtype, features)

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        return _Sharded(self.data(context)).wrap(
            super().wrap(model, units, context), units, context
        )

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
        yield
        model.set_requires_gradient_sync(True)  # type: ignore[operator]


class TensorParallelHsdp(TensorParallelFsdp2):
    """3-D: replicas of shards of two, tensor parallel within pairs. By 4 ranks, of one replica."""

    name = "fsdp2_hsdp_tp"
    title = "parallelize_module by 2 ranks, fully_shard by 2, and replicas of that"
    ranks_multiple_of = 4
    limits: ClassVar[tuple[Limit, ...]] = (
        Limit(
            fact="fully_shard on a 2-D mesh of layers that are split",
            answer="Using TP with HSDP is not supported",
            before=(2, 5),
        ),
        *TensorParallelFsdp2.limits,
    )

    def both(self, context: RankContext) -> DeviceMesh:
        shape = (context.world_size // 4, 2, 2)
        return mesh(context, shape, ("replicate", "shard", "tensor"))

    def data(self, context: RankContext) -> DeviceMesh:
        return self.both(context)["replicate", "shard"]


class _Flat(Fsdp1OrigParams):
    """FSDP1 on some of the ranks."""

    def __init__(self, ranks: DeviceMesh) -> None:
        self.ranks = ranks

    def options(self, context: RankContext) -> dict[str, Any]:
        return {"device_mesh": self.ranks}


class _Sharded(Fsdp2):
    """FSDP2 on some of the ranks."""

    def __init__(self, ranks: DeviceMesh) -> None:
        self.ranks = ranks

    def mesh(self, context: RankContext) -> DeviceMesh:
        return self.ranks


def _whole(tensors: Tensors) -> Tensors:
    return {name: None if one is None else whole(one) for name, one in tensors.items()}
