"""The mean of ``cross_entropy`` over shards divides by each rank's own number of labels that count.

    python defects/dtensor_cross_entropy_mean.py

With weights of the classes, or with labels to be ignored, those numbers differ.

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
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
except ImportError:  # before 2.5
    from torch.distributed._tensor import Replicate, Shard, distribute_tensor

RANKS = 2


def lose(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 3.0]])
    labels = torch.tensor([0, 1, 1, 1])
    weight = torch.tensor([3.0, 1.0])
    right = torch.nn.functional.cross_entropy(x, labels, weight)
    placed = [distribute_tensor(t, mesh, [Shard(0)]) for t in (x, labels)]
    whole = distribute_tensor(weight, mesh, [Replicate()])
    found: float | str
    try:
        loss = torch.nn.functional.cross_entropy(*placed, whole).full_tensor()
        found = (loss - right).item()
    except RuntimeError as error:  # a refusal is no defect: gloo had no mean once
        found = str(error)
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(lose, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = isinstance(found, float) and abs(found) > 1e-6
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the mean of weighted losses is off by: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
