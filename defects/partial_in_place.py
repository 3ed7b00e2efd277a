"""An optimizer's momentum of a gradient that is still partial sums: in-place operations lose it.

    python defects/partial_in_place.py

``SequenceParallel`` leaves the gradient of a norm as partial sums (one term a rank), and SGD keeps
it as it is for its momentum.

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
    from torch.distributed.tensor import DTensor, Partial, Replicate
except ImportError:
    from torch.distributed._tensor import DTensor, Partial, Replicate

RANKS = 2


def train(rank: int, folder: str) -> None:
    """Two steps with momentum 0.5 and rate 1, gradients 1 + 2: from 0 to -3, then to -7.5."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    weight = torch.nn.Parameter(DTensor.from_local(torch.zeros(1), mesh, [Replicate()]))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.5)
    for _ in range(2):
        part = torch.full((1,), rank + 1.0)
        weight.grad = DTensor.from_local(part, mesh, [Partial()])
        optimizer.step()
    found = weight.detach().full_tensor()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(train, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True).item()
    wrong = found != -7.5
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the weight should be -7.5, and is {found:g}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
