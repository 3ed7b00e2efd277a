"""``torch._foreach_mul_`` of DTensors that are sums over the ranks changes copies of them.

    python defects/partial_in_place_foreach.py

``clip_grad_norm_`` multiplies gradients so, and then they are not clipped.

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
    from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor
except ImportError:  # before 2.5
    from torch.distributed._tensor import DTensor, Partial, Replicate, distribute_tensor

RANKS = 2


def multiply(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    # The gradient is [3, 4]: one element is one rank's.
    mine = torch.tensor([3.0, 0.0] if rank == 0 else [0.0, 4.0])
    gradient = DTensor.from_local(mine, mesh, [Partial()])
    factor = distribute_tensor(torch.tensor(0.2), mesh, [Replicate()])
    torch._foreach_mul_([gradient], factor)
    found = gradient.full_tensor()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(multiply, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = not torch.allclose(found, torch.tensor([0.6, 0.8]), atol=1e-5)
    verdict = "defect" if wrong else "right"
    print(
        f"{verdict}: torch {torch.__version__}: [3, 4], a fifth of it in place, is {found.tolist()}"
    )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
