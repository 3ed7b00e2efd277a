"""``fully_shard`` on a 2-D mesh of CPUs raises in the backward: HSDP does not run there.

    python defects/fsdp2_hsdp_on_cpu.py

In float32 gloo's all-reduce refuses ReduceOp.AVG, in float64 an event is asserted that a CPU has not.
Where ``fully_shard`` runs on no CPU at all, before 2.7, there is nothing to be seen.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:  # before 2.6
    from torch.distributed._composable.fsdp import fully_shard

RANKS = 2
DTYPES = (torch.float32, torch.float64)


def train(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    flat = _backward(init_device_mesh("cpu", (RANKS,)), DTYPES[0])
    mesh = init_device_mesh("cpu", (RANKS, 1), mesh_dim_names=("replicate", "shard"))
    said = [_backward(mesh, dtype) for dtype in DTYPES]
    if rank == 0:
        torch.save((flat, said), f"{folder}/said")


def _backward(mesh: DeviceMesh, dtype: torch.dtype) -> str:
    """What a forward and a backward come to, in words; nothing where they run."""
    try:
        model = torch.nn.Linear(4, 4, dtype=dtype)
        fully_shard(model, mesh=mesh)
        model(torch.ones(2, 4, dtype=dtype)).sum().backward()
    except Exception as error:
        return f"{type(error).__name__} {error}".splitlines()[0]
    return ""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(train, (folder,), RANKS, start_method="fork")
        flat, said = torch.load(f"{folder}/said", weights_only=True)
    wrong = not flat and any(said)
    words = "; ".join(filter(None, said)) or "it runs"
    verdict = "defect" if wrong else "right"
    found = f"on no CPU: {flat}" if flat else words
    print(f"{verdict}: torch {torch.__version__}: {found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
