"""FSDP1 whose shards are gathered by distparity, and compared with what FSDP itself unshards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from distparity.strategies import Pending
from distparity.strategies.fsdp1 import (
    _LAYOUTS,
    Fsdp1,
    Fsdp1OrigParams,
    unsharded,
    unsharded_gradients,
)
from distparity.strategies.fsdp1_variants import (
    Fsdp1Hybrid,
    Fsdp1HybridOrigParams,
    Fsdp1NoShard,
    Fsdp1ShardGradOp,
)


class ReadTwice(Fsdp1):
    """Fails where the two differ, at the moment of reading or when looked at in the end."""

    def parameters(self, model: nn.Module) -> Pending:
        found = super().parameters(model)
        self.seen = [*getattr(self, "seen", []), (found, unsharded(model))]
        return found

    def gradients(self, model: nn.Module) -> Pending:
        found = super().gradients(model)
        if self.use_orig_params:
            self.seen.append((found, unsharded_gradients(model)))
        return found

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        for found, direct in self.seen:
            _compare(found, direct)
        return super().optimizer_state(model, optimizer)


def _compare(found: Mapping[str, Any], direct: Mapping[str, Any]) -> None:
    assert list(found) == list(direct)
    for name, value in direct.items():
        if value is None or found[name] is None:
            assert value is None and found[name] is None, name
        else:
            assert torch.equal(found[name], value), name


class Flat(ReadTwice):
    name = "read_twice"


class Orig(ReadTwice, Fsdp1OrigParams):
    name = "read_twice_orig_params"


class Hybrid(ReadTwice, Fsdp1Hybrid):
    name = "read_twice_hybrid"


class HybridOrig(ReadTwice, Fsdp1HybridOrigParams):
    name = "read_twice_hybrid_orig_params"


class NoShard(ReadTwice, Fsdp1NoShard):
    name = "read_twice_no_shard"


class ShardGradOp(ReadTwice, Fsdp1ShardGradOp):
    name = "read_twice_shard_grad_op"


class Misled(Fsdp1):
    """What is learned of the shards is not so: the whole run is to fail, and to say why."""

    name = "misled"

    def _layout(self, model: nn.Module) -> Any:
        learned = model not in _LAYOUTS
        layout = super()._layout(model)
        for place in layout.where.values() if learned else ():
            place.view(-1).copy_(place.view(-1).flip(0))
        return layout
