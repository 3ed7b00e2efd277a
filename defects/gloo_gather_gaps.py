"""gloo gathers what lies in the gaps of a tensor in place of its elements.

    python defects/gloo_gather_gaps.py

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 2


def gather(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mine = torch.tensor([1.0, -1.0] * 4)[::2]
    places = [torch.zeros(4) for _ in range(RANKS)] if rank == 0 else None
    dist.gather(mine, places)
    found = None if places is None else places[1]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(gather, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True).tolist()
    wrong = found != [1.0] * 4
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: of [1, 1, 1, 1] the other rank gets {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
