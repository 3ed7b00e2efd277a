"""The mean of ``mse_loss`` over uneven shards is the mean of the ranks' means.

    python defects/dtensor_loss_mean_uneven.py

``binary_cross_entropy_with_logits`` does likewise, with elements of other weights.

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


def lose(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.arange(3.0), mesh, [Shard(0)])
    target = distribute_tensor(torch.zeros(3), mesh, [Shard(0)])
    found: float | str
    try:
        found = torch.nn.functional.mse_loss(x, target).full_tensor().item()
    except NotImplementedError as error:  # a refusal is no defect
        found = str(error)
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(lose, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = isinstance(found, float) and abs(found - 5 / 3) > 1e-6
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the mean of 0, 1 and 4: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
