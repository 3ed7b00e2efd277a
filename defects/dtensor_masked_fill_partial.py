"""``masked_fill`` of a DTensor that is partial sums fills each rank's summand.

    python defects/dtensor_masked_fill_partial.py

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
    from torch.distributed.tensor import DTensor, Partial
except ImportError:  # before 2.5
    from torch.distributed._tensor import DTensor, Partial

RANKS = 2


def fill(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    # The sum of the ranks' is 1 and -1, eight times.
    x = DTensor.from_local(torch.tensor([float(rank), -float(rank)] * 8), mesh, [Partial()])
    try:
        found = str(x.masked_fill(x > 0, 5.0).full_tensor()[:2].tolist())
    except (NotImplementedError, RuntimeError) as error:
        found = str(error).splitlines()[0]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(fill, (folder,), nprocs=RANKS)
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found.startswith("[") and found != "[5.0, -1.0]"
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: 1 and -1, and 5 for what is above 0: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
