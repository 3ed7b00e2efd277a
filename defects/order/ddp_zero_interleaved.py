"""``hook_with_zero_step_interleaved`` makes its step while parameters are still moved to its buckets.

    ASIM_MODE=side python defects/order/ddp_zero_interleaved.py

``ZeroRedundancyOptimizer(overlap_with_ddp=True)`` copies the parameters to buckets on the current stream,
in the first backward with a step. The hook makes that step on the stream of a future, which does not wait
for the copies. The program compares the loss after the first step with the one of plain training.

It needs torch and distparity-async, and exits with 1 where it shows the defect.
"""

import sys
import tempfile
from typing import Any

import distparity_async as asim
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import ddp_zero_hook, default_hooks
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel


def loss_after_a_step(*, overlaps: bool) -> float:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 16) for _ in range(4)]
    model: Any = torch.nn.Sequential(*layers).to("asim")
    batch = torch.ones(4, 16, device="asim")
    if overlaps:
        model = DistributedDataParallel(
            model, bucket_cap_mb=0.002, static_graph=True, gradient_as_bucket_view=True
        )
        optimizer: Any = ZeroRedundancyOptimizer(
            model.parameters(), torch.optim.SGD, overlap_with_ddp=True, lr=0.1
        )
        exchange, make = default_hooks.allreduce_hook, ddp_zero_hook.hook_with_zero_step_interleaved
        model.register_comm_hook(None, make(exchange, model, optimizer))
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # The first three backwards make no step: DDP has yet to build its buckets.
    for _ in range(4 if overlaps else 1):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    loss: float = model(batch).square().mean().item()
    return loss


def main() -> int:
    asim.register()
    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group("asimccl", init_method=f"file://{store.name}", rank=0, world_size=1)
        exact = loss_after_a_step(overlaps=False)
        asim.begin()
        found = loss_after_a_step(overlaps=True)
    return asim.conclude("" if found == exact else f"loss {found} for {exact}")


if __name__ == "__main__":
    sys.exit(main())
