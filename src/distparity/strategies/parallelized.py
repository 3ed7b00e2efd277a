"""Distributed by a function of the user's own that works in place, as torchtitan's ``parallelize`` does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from distparity.strategies._meshes import DeviceMesh, mesh
from distparity.strategies.base import Strategy, Tensors
from distparity.strategies.fsdp2 import whole

if TYPE_CHECKING:
    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch

__all__ = ["Parallelized"]


class Parallelized(Strategy):
    """Subclass it with a :attr:`name` and :meth:`parallelize` to check a parallelism of your own.

    Parameters may be DTensors or plain tensors afterwards, but must keep their names.
    """

    title = "parallelize(model, mesh)"
    tier: ClassVar[str] = "core"
    exchanges: ClassVar[bool] = False
    #: The names and sizes of the mesh's dims; one size may be -1, for all other ranks.
    mesh_dims: ClassVar[Mapping[str, int]] = {"dp": -1}
    #: The dims along which ranks have different rows.
    data_dims: ClassVar[tuple[str, ...]] = ("dp",)

    def parallelize(self, model: nn.Module, mesh: DeviceMesh) -> nn.Module:
        """Distribute ``model`` over ``mesh``; returns the model to train."""
        raise NotImplementedError

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        return self.parallelize(model, self._mesh(context))

    def _sizes(self, context: RankContext) -> dict[str, int]:
        known = math.prod(size for size in self.mesh_dims.values() if size > 0)
        return {
            name: size if size > 0 else context.world_size // known
            for name, size in self.mesh_dims.items()
        }

    def _mesh(self, context: RankContext) -> DeviceMesh:
        sizes = self._sizes(context)
        return mesh(context, tuple(sizes.values()), tuple(sizes))

    def _place(self, context: RankContext) -> tuple[int, int]:
        """Which part of the rows this rank has, and of how many."""
        part, parts, rest = 0, 1, context.world_size
        for name, size in self._sizes(context).items():
            rest //= size
            if name in self.data_dims:
                part, parts = part * size + context.rank // rest % size, parts * size
        return part, parts

    def rows(self, batch: Batch, context: RankContext) -> Batch:
        part, parts = self._place(context)
        return tuple(tensor.chunk(parts)[part] for tensor in batch)

    def rows_shared_by(self, context: RankContext) -> int:
        return context.world_size // self._place(context)[1]

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
        yield
        model.set_requires_gradient_sync(True)  # type: ignore[operator]

    def parameters(self, model: nn.Module) -> Tensors:
        return {self.clean(n): whole(p.detach()) for n, p in model.named_parameters()}

    def gradients(self, model: nn.Module) -> Tensors:
        found: dict[str, Any] = dict(model.named_parameters())
        return {self.clean(name): whole(one.grad) for name, one in found.items()}
