"""Gathering from a DTensor fails when one of another dtype was gathered from before.

    python defects/dtensor_gather_again.py

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
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
except ImportError:  # before 2.5
    from torch.distributed._tensor import Replicate, Shard, distribute_tensor

RANKS = 2


def gather(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    columns = distribute_tensor(torch.tensor([[1], [0]]), mesh, [Replicate()])
    found = []
    for dtype in (torch.float32, torch.float64):
        table = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dtype)
        placed = distribute_tensor(table, mesh, [Shard(1)])
        try:
            found.append(placed.gather(1, columns).full_tensor().flatten().tolist())
        except AssertionError:
            found.append("an AssertionError")
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(gather, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found != [[2.0, 3.0], [2.0, 3.0]]
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: in float32, then in float64, 2 and 3 are {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
