"""``rms_norm`` over a sharded dim takes another epsilon than it is given.

    python defects/dtensor_rms_norm.py

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


def normalise(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = torch.tensor([[1.0, 3.0]])
    right = torch.nn.functional.rms_norm(x, (2,), torch.ones(2), 1.0)
    placed = distribute_tensor(x, mesh, [Shard(1)])
    weight = distribute_tensor(torch.ones(2), mesh, [Replicate()])
    try:
        found = torch.nn.functional.rms_norm(placed, (2,), weight, 1.0).full_tensor()
        found = [found.tolist(), (found - right).abs().max().item()]
    except RuntimeError as error:  # a refusal is no defect
        found = [str(error).splitlines()[0], 0.0]
    if rank == 0:
        torch.save(found, f"{folder}/found")
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(normalise, (folder,), RANKS, start_method="fork")
        found = torch.load(f"{folder}/found", weights_only=True)
    wrong = found[1] > 1e-5
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {found[0]}, off by {found[1]}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
