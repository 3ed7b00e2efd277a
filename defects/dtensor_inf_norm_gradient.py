"""The gradient of a sharded DTensor's maximum norm is NaN, and infinite where the maximum is.

    python defects/dtensor_inf_norm_gradient.py

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


def differentiate(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.tensor([1.0, 2.0, 3.0, 4.0]), mesh, [Shard(0)]).requires_grad_()
    torch.linalg.vector_norm(x, float("inf")).full_tensor().backward()
    assert x.grad is not None
    found = x.grad.full_tensor()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(differentiate, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True).tolist()
    wrong = found != [0.0, 0.0, 0.0, 1.0]
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: a gradient of [0, 0, 0, 1] is {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
