"""The maximum, a norm, or a product of partial sums is taken of each rank's summands.

    python defects/dtensor_max_of_partial.py

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


def reduce(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    # The sum of the ranks' is [1, 1].
    x = DTensor.from_local(torch.tensor([float(rank), 1.0 - rank]), mesh, [Partial()])
    found = {
        "maximum": x.max().full_tensor().item(),
        "norm": torch.linalg.vector_norm(x).full_tensor().item(),
    }
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(reduce, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found["maximum"] != 1 or abs(found["norm"] - 2**0.5) > 1e-5
    verdict = "defect" if wrong else "right"
    print(
        f"{verdict}: torch {torch.__version__}: of [1, 1] the maximum is {found['maximum']}, the norm {found['norm']:.4f}"
    )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
