"""gloo's functional reduce-scatter gives the sum, whatever reduction it is asked for.

    python defects/gloo_reduce_scatter_max.py

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import _functional_collectives as functional

RANKS = 2


def maximum(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    given = torch.full((RANKS,), rank + 1.0)
    found = functional.reduce_scatter_tensor(given, "max", 0, dist.group.WORLD).clone()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(maximum, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True).item()
    wrong = found != 2
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the maximum of 1 and 2 is {found:g}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
