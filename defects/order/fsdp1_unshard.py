"""``FullyShardedDataParallel._unshard`` of torch 2.10 waits for a stream as if it were an event.

    ASIM_MODE=late python defects/order/fsdp1_unshard.py

It gives its handle the stream of the all-gather in place of the event that it has recorded there.
``torch.Stream.wait_event`` takes what it gets for an event, and nobody waits: who reads the parameters
next reads memory that is still written. torch.cuda's streams raise ``AttributeError`` there. The program
compares what it reads at once with what it reads when the device has finished. torch 2.11 has mended it.

It needs torch and distparity-async, and exits with 1 where it shows the defect.
"""

import os
import sys
import tempfile

import distparity_async as asim
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel


def read(rank: int, store: str) -> int:
    asim.register()
    dist.init_process_group("asimccl", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    unit = FullyShardedDataParallel(torch.nn.Linear(16, 16).to("asim"), use_orig_params=True)
    model = FullyShardedDataParallel(torch.nn.Sequential(unit), use_orig_params=True)
    # The first forward makes the streams.
    model(torch.zeros(4, 16, device="asim"))
    asim.begin()
    unit._unshard()  # noqa: SLF001  the defect is in it
    at_once = [one.detach() + 0 for one in unit.parameters()]
    torch.accelerator.synchronize()
    exact = [one.detach() + 0 for one in unit.parameters()]
    same = [torch.equal(*pair) for pair in zip(at_once, exact, strict=True)]
    return asim.conclude("" if all(same) else f"{same.count(False)} parameters of rank {rank}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(read(1, f"{folder}/store"))
        sys.exit(max(read(0, f"{folder}/store"), os.waitpid(child, 0)[1] >> 8))
