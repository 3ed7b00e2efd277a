"""``consolidate_state_dict`` gives the state back while it is still copied to the host.

    ASIM_MODE=late python defects/order/zero_consolidate.py

``ZeroRedundancyOptimizer.consolidate_state_dict`` copies the optimizer's state with ``non_blocking=True``,
and waits for nothing. torch pins the memory of such a copy, so that who reads ``state_dict()`` next, or
saves it, may read what was in that memory before. The program compares what it reads at once with what it
reads when the device has finished.

It needs torch and distparity-async, and exits with 1 where it shows the defect.
"""

import sys
import tempfile
from typing import Any

import distparity_async as asim
import torch
import torch.distributed as dist
from torch.distributed.optim import ZeroRedundancyOptimizer


def main() -> int:
    asim.register()
    torch.manual_seed(0)
    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group("asimccl", init_method=f"file://{store.name}", rank=0, world_size=1)
        model = torch.nn.Linear(16, 16).to("asim")
        optimizer: Any = ZeroRedundancyOptimizer(
            model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9
        )
        asim.begin()
        model(torch.ones(4, 16, device="asim")).square().mean().backward()
        optimizer.step()
        optimizer.consolidate_state_dict(to=0)
        states = optimizer.state_dict()["state"].values()
        at_once = [state["momentum_buffer"] + 0 for state in states]
        torch.accelerator.synchronize()
        exact = [state["momentum_buffer"] + 0 for state in states]
    same = [torch.equal(*pair) for pair in zip(at_once, exact, strict=True)]
    return asim.conclude("" if all(same) else f"momentum of {same.count(False)} parameters")


if __name__ == "__main__":
    sys.exit(main())
