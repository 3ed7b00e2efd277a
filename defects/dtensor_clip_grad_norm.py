"""``clip_grad_norm_`` of DTensors adds its 1e-6 to the norm on every rank, in place of once.

    python defects/dtensor_clip_grad_norm.py

So gradients are clipped a little too much, and the more the more ranks there are.

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
#: So small a gradient, and so small a norm to clip to, that 1e-6 counts.
SMALL = 1e-6
#: The norm of four times 1e-6 is 2e-6: the factor is 1e-6 / (2e-6 + 1e-6).
RIGHT = 1 / 3


def clip(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    weight = torch.nn.Parameter(distribute_tensor(torch.ones(4).double(), mesh, [Shard(0)]))
    weight.grad = distribute_tensor(torch.full((4,), SMALL).double(), mesh, [Shard(0)])
    torch.nn.utils.clip_grad_norm_([weight], max_norm=SMALL)
    found = weight.grad.full_tensor()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(clip, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)[0].item() / SMALL
    wrong = abs(found - RIGHT) > 1e-3 * RIGHT
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: clipped by {found:.4f}, to be {RIGHT:.4f}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
