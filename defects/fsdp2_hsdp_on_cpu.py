"""``fully_shard`` on a 2-D mesh of CPUs raises in the backward: HSDP does not run there.

    python defects/fsdp2_hsdp_on_cpu.py

In float32 gloo's all-reduce refuses ReduceOp.AVG, in float64 an event is asserted that a CPU has not.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

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
    said = [f"{dtype}: {_backward(dtype)}" for dtype in DTYPES]
    if rank == 0:
        Path(folder, "said").write_text("; ".join(said))


def _backward(dtype: torch.dtype) -> str:
    """What a forward and a backward come to, in words."""
    try:
        mesh = init_device_mesh("cpu", (RANKS, 1), mesh_dim_names=("replicate", "shard"))
        model = torch.nn.Linear(4, 4, dtype=dtype)
        fully_shard(model, mesh=mesh)
        model(torch.ones(2, 4, dtype=dtype)).sum().backward()
    except Exception as error:
        return f"{type(error).__name__} {error}".splitlines()[0]
    return "no error"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(train, (folder,), nprocs=RANKS)
        said = Path(folder, "said").read_text()
    wrong = said.count("no error") < len(DTYPES)
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {said}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
