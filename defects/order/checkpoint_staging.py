"""``DefaultStager`` copies a state on a stream that does not wait for the one that computes it.

    ASIM_MODE=late python defects/order/checkpoint_staging.py

``torch.distributed.checkpoint.async_save`` takes a stager. With ``use_async_staging`` and
``use_non_blocking_copy`` (both the default), a thread copies the state to the host on a stream of its
own. That stream does not wait for the current one, on which the optimizer's step may still be under
way: the checkpoint has parts of the step before, or what was in the memory by chance. The program
compares the staged parameters with those that the step makes.

It needs torch and distparity-async, and exits with 1 where it shows the defect.
"""

import sys
from typing import Any

import distparity_async as asim
import torch
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions


def main() -> int:
    asim.register()
    torch.manual_seed(0)
    model = torch.nn.Linear(16, 16).to("asim")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    batch = torch.ones(4, 16, device="asim")
    # Memory is pinned and shared by CUDA's runtime, which is not here; the streams are the same.
    stager: Any = DefaultStager(StagingOptions(use_pinned_memory=False, use_shared_memory=False))
    asim.begin()
    model(batch).square().mean().backward()
    optimizer.step()
    staged = stager.stage(model.state_dict()).result()
    stager.close()
    wrong = [name for name, made in model.state_dict().items() if not same(made, staged[name])]
    return asim.conclude(f"parameters {wrong}" if wrong else "")


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one.cpu(), other.cpu()))


if __name__ == "__main__":
    sys.exit(main())
