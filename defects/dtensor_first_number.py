"""An operation of DTensors is done with the number that it was called with the first time.

    python defects/dtensor_first_number.py

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

try:
    from torch.distributed.tensor import DTensor, Partial
except ImportError:  # before 2.5
    from torch.distributed._tensor import DTensor, Partial

RANKS = 2


def clamp(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    # Each rank has a summand, so that an operation that is not linear has to exchange them first.
    x = DTensor.from_local(torch.full((1,), 5.0), mesh, [Partial()])
    found = [x.clamp(None, most).full_tensor().item() for most in (3.0, 7.0)]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    # How a process group ends is another question: with torch 2.4 it may hang, or abort.
    dist.barrier()
    os._exit(0)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(clamp, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found != [3.0, 7.0]
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: 10, at most 3 and then at most 7, is {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
