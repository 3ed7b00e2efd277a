"""The mean of a DTensor over uneven shards is the mean of the ranks' means.

    python defects/dtensor_mean_uneven.py

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


def average(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.tensor([0.0, 0.0, 3.0]), mesh, [Shard(0)])
    found: float | str
    try:
        found = x.mean().full_tensor().item()
    except RuntimeError as error:  # a refusal is no defect: gloo had no mean once
        found = str(error).splitlines()[0]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(average, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = isinstance(found, float) and found != 1
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the mean of 0, 0 and 3: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
