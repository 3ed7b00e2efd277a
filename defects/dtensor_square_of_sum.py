"""The gradient of the square of a sum over shards is that of another number on every rank.

    python defects/dtensor_square_of_sum.py

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


def square(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.tensor([1.0, 2.0]), mesh, [Shard(0)]).requires_grad_()
    (x.sum() ** 2).full_tensor().backward()
    found = x.grad.full_tensor().tolist()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(square, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found != [6.0, 6.0]
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the gradient of (1 + 2) ** 2 is {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
