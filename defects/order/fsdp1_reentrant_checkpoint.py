"""FSDP1 with ``use_orig_params=True``, called again by a reentrant checkpoint, copies gradients too early.

    ASIM_MODE=late python defects/order/fsdp1_reentrant_checkpoint.py

It calls a unit's forward within the backward. A gradient that is there already is moved on the stream of the
all-gathers, which does not wait for the reduce-scatter. The program compares gradients with plain torch.

It needs torch and distparity-async, and exits with 1 where it shows the defect.
"""

import os
import sys
import tempfile
from typing import Any

import distparity_async as asim
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.checkpoint import checkpoint


class Model(torch.nn.Module):
    def __init__(self, *, shards: bool) -> None:
        super().__init__()
        self.unit: Any = torch.nn.Linear(16, 16, bias=False).to("asim")
        if shards:
            self.unit = FullyShardedDataParallel(self.unit, use_orig_params=True)

    def forward(self, out: Any) -> Any:
        for _ in range(3):
            out = checkpoint(self.unit, out, use_reentrant=True)
        return out


def gradient(*, shards: bool) -> Any:
    torch.manual_seed(0)
    model: Any = Model(shards=shards)
    whole = FullyShardedDataParallel(model, use_orig_params=True) if shards else model
    whole(torch.ones(4, 16, device="asim", requires_grad=True)).square().mean().backward()
    return next(model.parameters()).grad.cpu().flatten()


def train(rank: int, store: str) -> int:
    asim.register()
    dist.init_process_group("asimccl", init_method=f"file://{store}", rank=rank, world_size=2)
    exact = gradient(shards=False).chunk(2)[rank]
    asim.begin()
    found = gradient(shards=True)
    return asim.conclude("" if torch.allclose(exact, found) else f"gradient of rank {rank}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(train(1, f"{folder}/store"))
        sys.exit(max(train(0, f"{folder}/store"), os.waitpid(child, 0)[1] >> 8))
