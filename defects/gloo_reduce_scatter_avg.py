"""gloo takes ``reduce_scatter_tensor(op=AVG)`` and gives the sum, without a word.

    python defects/gloo_reduce_scatter_avg.py

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 2


def average(rank: int, folder: str) -> None:
    """Rank ``r`` gives ``[r + 1, r + 1]``: the average is 1.5, and the sum 3."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    found = torch.zeros(1)
    dist.reduce_scatter_tensor(found, torch.full((RANKS,), rank + 1.0), op=dist.ReduceOp.AVG)
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(average, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True).item()
    wrong = found != 1.5
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the average of 1 and 2 is {found:g}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
