"""Meshes of all ranks, one of each shape, and the tensors that live on them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

try:
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
except ImportError:
    # Its place before 2.5.
    from torch.distributed._tensor import DTensor, Replicate, Shard, distribute_module

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

__all__ = ["DTensor", "DeviceMesh", "Replicate", "Shard", "distribute_module", "mesh", "mesh_lines"]


def mesh(
    context: RankContext, shape: tuple[int, ...], names: tuple[str, ...] | None = None
) -> DeviceMesh:
    """The mesh of this shape over the ranks of a world; ``names`` are those of its dims, if any.

    All cases of a world share it, because each new mesh makes process groups that stay.
    """
    return _mesh(context.device.type, shape, names)


def mesh_lines(ranks: DeviceMesh | None) -> tuple[str, ...]:
    """The line of a program that makes such a mesh as ``mesh``; none for None."""
    if ranks is None:
        return ()
    named = "" if ranks.mesh_dim_names is None else f", mesh_dim_names={ranks.mesh_dim_names!r}"
    return (f"mesh = dist.init_device_mesh({ranks.device_type!r}, {tuple(ranks.shape)}{named})",)


@cache
def _mesh(device: str, shape: tuple[int, ...], names: tuple[str, ...] | None) -> DeviceMesh:
    return init_device_mesh(device, shape, mesh_dim_names=names)
