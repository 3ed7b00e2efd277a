"""``fully_shard`` of two layers that share a weight gives each its own, without a word.

    python defects/fsdp2_tied_across_units.py

Later releases refuse it, and that is right as well.

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


def shard(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    enter, leave = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    leave.weight = enter.weight
    model = torch.nn.Sequential(enter, leave)
    try:
        for module in (enter, leave, model):
            fully_shard(module, mesh=mesh)
        # Where it is refused, it may be here.
        model(torch.ones(1, 2))
        said = "one weight" if leave.weight is enter.weight else "two weights"
    except Exception as error:
        said = f"refused, {type(error).__name__} {error}".splitlines()[0]
    if rank == 0:
        Path(folder, "said").write_text(said)
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(shard, (folder,), RANKS, start_method="fork")
        said = Path(folder, "said").read_text()
    wrong = said == "two weights"
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {said}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
