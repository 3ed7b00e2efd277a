"""``gather`` from a DTensor that is partial sums asserts without a word.

    python defects/dtensor_gather_of_partial.py

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


def gather(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = DTensor.from_local(torch.ones(8, 8), mesh, [Partial()])
    where = distribute_tensor(torch.zeros(8, dtype=torch.int64), mesh, [Replicate()])
    try:
        found = str(x.gather(1, where[:, None]).full_tensor()[0].item())
    except Exception as error:
        found = f"{type(error).__name__}: {error}".splitlines()[0]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(gather, (folder,), nprocs=RANKS)
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found.startswith("AssertionError")
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: of twos: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
