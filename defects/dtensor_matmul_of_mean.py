"""The product of a DTensor that is a mean over the ranks is treated as a sum over them.

    python defects/dtensor_matmul_of_mean.py

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
    from torch.distributed.tensor import DTensor, Partial, Replicate
except ImportError:  # before 2.5
    from torch.distributed._tensor import DTensor, Partial, Replicate

RANKS = 2


def multiply(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = DTensor.from_local(torch.ones(8, 8), mesh, [Partial("avg")])
    w = DTensor.from_local(torch.ones(8, 6), mesh, [Replicate()])
    found: float | str
    try:
        found = (x @ w).full_tensor()[0, 0].item()
    except RuntimeError as error:  # a refusal is no defect: gloo had no mean once
        found = str(error).splitlines()[0]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(multiply, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = isinstance(found, float) and found != 8
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the mean of ones, times 8 ones: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
