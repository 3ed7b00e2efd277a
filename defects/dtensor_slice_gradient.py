"""The gradient of a part of a DTensor has the shape of another shard.

    python defects/dtensor_slice_gradient.py

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
    from torch.distributed.tensor import Shard, distribute_tensor
except ImportError:  # before 2.5
    from torch.distributed._tensor import Shard, distribute_tensor

RANKS = 2


def slice_(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    said = []
    # Even shards and every row, then uneven ones and the first row.
    for rows, part in ((4, slice(None)), (3, slice(1))):
        x = distribute_tensor(torch.ones(rows, 2), mesh, [Shard(0)]).requires_grad_()
        try:
            x[part, :1].full_tensor().sum().backward()
            grad = x.grad.full_tensor()
            ones = torch.zeros(rows, 2)
            ones[part, :1] = 1
            said.append("" if grad.equal(ones) else f"a gradient is {grad.tolist()}")
        except Exception as error:
            said.append(str(error).splitlines()[0])
    found = "; ".join(filter(None, said))
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(slice_, (folder,), nprocs=RANKS)
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = bool(found)
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {found or 'gradients are right'}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
