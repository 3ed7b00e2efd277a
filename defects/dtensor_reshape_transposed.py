"""``reshape`` of a transposed DTensor, or its gradient, calls ``view``, which refuses it.

    python defects/dtensor_reshape_transposed.py

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


def reshape(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)]).requires_grad_()
    try:
        (x.t().reshape(-1).full_tensor() * torch.arange(16.0)).sum().backward()
        found = str(x.grad.full_tensor().t().reshape(-1).tolist())
    except RuntimeError as error:
        found = str(error).splitlines()[0]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(reshape, (folder,), nprocs=RANKS)
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found.startswith("view size")
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
