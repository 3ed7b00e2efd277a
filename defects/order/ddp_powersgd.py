"""``powerSGD_hook`` with error feedback gives memory back that another stream still reads.

    ASIM_MODE=late python defects/order/ddp_powersgd.py

The hook copies a bucket on the current stream, and subtracts from the copy on the stream of a future to
get the error of its compression. The copy's memory then goes back to the current stream, which does not
wait for the subtraction. CUDA's device is synchronized just before, which makes the gap small there; other
devices are not. The program compares the losses with those in mode ``eager``.

It needs torch and distparity-async, and exits with 1 where it shows the defect.
"""

import sys
import tempfile

import distparity_async as asim
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
from torch.nn.parallel import DistributedDataParallel


def losses() -> list[float]:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 16) for _ in range(6)]
    model = DistributedDataParallel(torch.nn.Sequential(*layers).to("asim"), bucket_cap_mb=0.002)
    state = powerSGD_hook.PowerSGDState(
        process_group=None,
        matrix_approximation_rank=2,
        start_powerSGD_iter=2,
        min_compression_rate=0.1,
    )
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.randn(4, 16).to("asim")
    found = []
    for _ in range(6):
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.detach())
    return [loss.item() for loss in found]


def main() -> int:
    asim.register()
    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group("asimccl", init_method=f"file://{store.name}", rank=0, world_size=1)
        mode = asim.mode()
        asim.begin("eager")
        exact = losses()
        asim.begin(mode)
        found = losses()
    return asim.conclude("" if found == exact else f"losses {found} for {exact}")


if __name__ == "__main__":
    sys.exit(main())
