"""The gradient of ``mse_loss``'s mean over shards is too large, by the number of ranks.

    python defects/dtensor_mse_loss_gradient.py

So are those of ``smooth_l1_loss`` and ``huber_loss``; the losses themselves are right.

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


def differentiate(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.ones(4, 1), mesh, [Shard(0)]).requires_grad_()
    target = distribute_tensor(torch.zeros(4, 1), mesh, [Shard(0)])
    found: float | str
    try:
        torch.nn.functional.mse_loss(x, target).full_tensor().backward()
    except NotImplementedError as error:  # a refusal is no defect
        found = str(error)
    else:
        assert x.grad is not None
        found = x.grad.full_tensor()[0].item()
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(differentiate, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = isinstance(found, float) and found != 0.5
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: a gradient, to be 0.5: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
