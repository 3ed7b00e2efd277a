"""Keep an optimizer's state shard by shard, and gather it once, after training.

A gather of every tensor after every step would make a case as much longer as reading its gradients
does. The values that ranks kept of one parameter, at all steps, are one DTensor with one more dim.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from distparity.strategies._meshes import DTensor
from distparity.strategies.base import Pending, Tensors, state_keys, state_of

__all__ = ["keep_state"]


def keep_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Pending:
    """Copy this rank's shards of the state of every parameter, by ``name.key``.

    A parameter that is no DTensor is one that this rank has in full. All ranks that share a parameter
    must call it equally often. Names are those of ``model.named_parameters()``.
    """
    return _SHELVES.setdefault(model, _Shelf()).keep(model, optimizer)


class _Shelf:
    """What ranks kept of one model and did not gather yet."""

    def __init__(self) -> None:
        self.kept: list[_Kept] = []

    def keep(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Pending:
        made = _Kept(self)
        for name, parameter in model.named_parameters():
            for key in state_keys(optimizer):
                value = state_of(optimizer, parameter, key)
                # A rank whose shard is empty has no state, and must take part in the gather.
                value = torch.full_like(parameter, torch.nan) if value is None else value
                made.shards[name, key] = _Shard.of(value.detach())
        self.kept.append(made)
        return made

    def gather(self) -> None:
        kept, self.kept = self.kept, []
        alike: dict[Any, list[tuple[Tensors, _Shard, str]]] = {}
        for one in kept:
            found: Tensors = {}
            one.found = found
            for (name, key), shard in one.shards.items():
                place = found, shard, f"{name}.{key}"
                alike.setdefault((name, shard.placements), []).append(place)
        for places in alike.values():
            full = _whole([shard for _, shard, _ in places])
            for number, (found, _, whole) in enumerate(places):
                value = full[..., number]
                # A tensor of NaN alone is one that no rank has; a state of NaN is wrong in any case.
                if not value.numel() or not value.isnan().all():
                    found[whole] = value


class _Kept(Pending):
    """A rank's shards at one time."""

    def __init__(self, shelf: _Shelf) -> None:
        self.shelf = shelf
        #: By the parameter's name and the state's key.
        self.shards: dict[tuple[str, str], _Shard] = {}

    def gather(self) -> None:
        self.shelf.gather()


_SHELVES: WeakKeyDictionary[nn.Module, _Shelf] = WeakKeyDictionary()


class _Shard(NamedTuple):
    """A copy of this rank's shard, and where the others are; None where this rank has all of it."""

    local: torch.Tensor
    shape: torch.Size
    mesh: Any
    placements: Any

    @classmethod
    def of(cls, tensor: Any) -> _Shard:
        if not isinstance(tensor, DTensor):
            return cls(tensor.clone(), tensor.shape, None, None)
        # Its own placements: torch may have left a state as a sum that ranks have yet to add up.
        local = tensor.to_local().clone()
        return cls(local, tensor.shape, tensor.device_mesh, tuple(tensor.placements))


def _whole(shards: list[_Shard]) -> torch.Tensor:
    """The full tensors of shards with the same placements, stacked: ``[*shape, len(shards)]``."""
    # The new dim is the last, so that the others are sharded as they were.
    stack, first = torch.stack([one.local for one in shards], -1), shards[0]
    if first.mesh is None:
        return stack
    shape = torch.Size((*first.shape, len(shards)))
    stride = torch.empty(shape, device="meta").stride()
    stacked = DTensor.from_local(
        stack, first.mesh, first.placements, run_check=False, shape=shape, stride=stride
    )
    full: torch.Tensor = stacked.full_tensor()
    return full
