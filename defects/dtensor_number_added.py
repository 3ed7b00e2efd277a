"""A number is added to each rank's summand of a DTensor that is partial sums.

    python defects/dtensor_number_added.py

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

try:
    from torch.distributed.tensor import Shard, distribute_tensor
except ImportError:  # before 2.5
    from torch.distributed._tensor import Shard, distribute_tensor

RANKS = 2


def add(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.ones(RANKS), mesh, [Shard(0)])
    found = (x.sum() + 1).full_tensor().item()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(add, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found != RANKS + 1
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the sum of two ones, and 1 more, is {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
