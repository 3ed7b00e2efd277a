"""The functional all-to-all of a tensor with gaps sends what lies in the gaps.

    python defects/functional_all_to_all_gaps.py

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed._functional_collectives import all_to_all_single

RANKS = 2


def exchange(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mine = torch.tensor([1.0, -1.0] * 4)[::2]
    try:
        found = str(all_to_all_single(mine, None, None, dist.group.WORLD).tolist())
    except Exception as error:
        found = f"an error: {error}".splitlines()[0]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(exchange, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found.startswith("[") and found != str([1.0] * 4)
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: of ones, ones become {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
