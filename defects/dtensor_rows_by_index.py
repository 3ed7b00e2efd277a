"""Rows of a sharded DTensor, by their numbers: the gradient does not fit the shard.

    python defects/dtensor_rows_by_index.py

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


def index(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)]).requires_grad_()
    rows = distribute_tensor(torch.tensor([3, 0, 1, 2]), mesh, [Shard(0)])
    try:
        x[rows].full_tensor().sum().backward()
        found = str(x.grad.full_tensor().tolist())
    except Exception as error:
        found = str(error).splitlines()[0]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(index, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = "shape mismatch" in found or "out of bounds" in found
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
