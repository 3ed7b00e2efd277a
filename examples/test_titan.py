"""A plan in the manner of torchtitan: tensor parallel inside, fully_shard outside, on a 2-D mesh."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn import functional as F

import distparity


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down(F.silu(self.up(self.norm(x))))
        return x + out


class Blocks(distparity.Scenario):
    def model(self) -> nn.Module:
        return nn.Sequential(Block(16), Block(16), nn.Linear(16, 4))

    def batch(self, rows: int) -> distparity.Batch:
        return torch.randn(rows, 16), torch.randn(rows, 4)

    def loss(self, model: nn.Module, batch: distparity.Batch) -> torch.Tensor:
        x, target = batch
        return F.mse_loss(model(x), target)


def parallelize(model: nn.Sequential, mesh: Any) -> nn.Module:
    """What a trainer has: apply tensor parallelism to every block, then shard it."""
    for block in model[:2]:
        plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        parallelize_module(block, mesh["tp"], plan)
        fully_shard(block, mesh=mesh["dp"])
    fully_shard(model, mesh=mesh["dp"])
    return model


class Titan(distparity.Parallelized):
    name = "titan"
    mesh_dims = {"dp": -1, "tp": 2}

    def parallelize(self, model: nn.Module, mesh: Any) -> nn.Module:
        assert isinstance(model, nn.Sequential)
        return parallelize(model, mesh)


test_titan = distparity.cases(Blocks, strategies=[Titan], world_sizes=[4])
