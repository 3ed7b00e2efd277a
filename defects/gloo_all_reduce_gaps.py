"""gloo reduces, broadcasts and scatters what lies in the gaps of a tensor in place of its elements.

    python defects/gloo_all_reduce_gaps.py

It counts the elements, and takes so many from the first on, without regard to strides.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 2


def reduce(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    found = torch.full((4,), rank + 1.0).repeat_interleave(2)[::2]
    dist.all_reduce(found)
    found = found.clone()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(reduce, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True).tolist()
    wrong = found != [3.0] * 4
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the sum of ones and twos is {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
