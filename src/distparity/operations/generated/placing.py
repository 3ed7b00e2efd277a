"""Placements by name, and each rank's part of a tensor that is placed so.

A placement is ``R`` (replicated), ``S0`` (sharded on dim 0), ``Psum``, ``Pavg``, ``Pmax`` or ``Pmin``
(every rank has a term), or ``X0``: sharded on dim 0 after a later dim of the mesh was, as ``fully_shard``
does over tensor parallelism. Placements on a mesh of two dims are joined by a dot: ``S0.S1``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from distparity.operations.base import seeded
from distparity.operations.generated.guard import asked

try:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
except ImportError:  # its name before 2.5
    from torch.distributed._tensor import DTensor, Partial, Replicate, Shard

__all__ = ["DTensor", "joined", "part", "placements"]

#: Numbers are multiples of this, so that sums of parts are exact.
_GRAIN = 2.0**-20


def placements(how: str, mesh: tuple[int, ...]) -> list[Any]:
    """torch's placements for their names."""
    return [_placement(word, n, mesh) for n, word in enumerate(how.split("."))]


def _placement(word: str, dim: int, mesh: tuple[int, ...]) -> Any:
    if word == "R":
        return Replicate()
    if word[0] == "P":
        return Partial(word[1:])
    if word[0] == "S":
        return Shard(int(word[1:]))
    from torch.distributed.tensor.placement_types import _StridedShard

    return _StridedShard(int(word[1:]), split_factor=mesh[dim + 1])


def joined(
    local: torch.Tensor, mesh: DeviceMesh, how: str, shape: torch.Size, stride: tuple[int, ...]
) -> Any:
    """The distributed tensor of the ranks' parts; asked of torch, see :func:`asked`."""
    to = placements(how, tuple(mesh.shape))
    return asked(
        lambda: DTensor.from_local(local, mesh, to, run_check=False, shape=shape, stride=stride)
    )


def part(
    whole: torch.Tensor, how: str, mesh: tuple[int, ...], at: tuple[int, ...], seed: int
) -> torch.Tensor:
    """The part of the rank with the coordinates ``at`` in a mesh of the sizes ``mesh``."""
    words = how.split(".")
    mine = whole
    for dim, word in enumerate(words):
        if word[0] == "P":
            before = tuple(at[n] for n in range(dim) if words[n][0] == "P")
            mine = _term(mine, word[1:], mesh[dim], at[dim], (seed, dim, before))
    order = list(range(len(words)))
    for dim, word in enumerate(words):
        if word[0] == "X":
            # The later dim of the mesh comes first.
            order[dim], order[dim + 1] = order[dim + 1], order[dim]
    for dim in order:
        if words[dim][0] in "SX":
            mine = _shard(mine, int(words[dim][1:]), mesh[dim], at[dim])
    return mine.clone(memory_format=torch.contiguous_format)


def _shard(whole: torch.Tensor, dim: int, parts: int, mine: int) -> torch.Tensor:
    chunks = list(whole.chunk(parts, dim))
    if mine < len(chunks):
        return chunks[mine]
    return whole.narrow(dim, 0, 0)


def _term(
    whole: torch.Tensor, op: str, parts: int, mine: int, key: tuple[Any, ...]
) -> torch.Tensor:
    """One of ``parts`` terms whose reduction is exactly ``whole``."""
    generator = seeded(key[0], op, key)
    if op in ("max", "min"):
        owner = torch.randint(0, parts, whole.shape, generator=generator)
        off = [_noise(whole, generator).abs() for _ in range(parts)][mine]
        off = torch.where(owner == mine, torch.zeros_like(off), off)
        return whole - off if op == "max" else whole + off
    terms = [_noise(whole, generator) for _ in range(parts - 1)]
    times = parts if op == "avg" else 1
    last = whole * times - sum(terms, torch.zeros_like(whole))
    return [*terms, last][mine]


def _noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not (like.is_floating_point() or like.is_complex()):
        return torch.randint(-5, 6, like.shape, generator=generator).to(like.dtype)
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return ((drawn / _GRAIN).round() * _GRAIN).to(like.dtype)
