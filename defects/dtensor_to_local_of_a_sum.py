"""The gradient of ``to_local`` of a DTensor that is a sum over ranks is too large, by their number.

    python defects/dtensor_to_local_of_a_sum.py

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


def differentiate(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    # Every rank has a term; the loss is the sum of all terms, so the gradient of the whole is 1.
    whole = DTensor.from_local(torch.full((3,), rank + 1.0), mesh, [Partial()]).requires_grad_()
    whole.to_local().sum().backward()
    assert whole.grad is not None
    found = whole.grad.full_tensor()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(differentiate, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True).tolist()
    wrong = found != [1.0, 1.0, 1.0]
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: a gradient of [1, 1, 1] is {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
