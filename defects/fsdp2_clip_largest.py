"""``clip_grad_norm_`` by the infinity norm raises on a rank whose shard of a gradient is empty.

    python defects/fsdp2_clip_largest.py

One row that is sharded over two ranks, as ``fully_shard`` shards the parameter of a small layer: the
second rank has nothing of it.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import math
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

try:
    from torch.distributed.tensor import Shard, distribute_tensor
except ImportError:  # before 2.5
    from torch.distributed._tensor import Shard, distribute_tensor

RANKS = 2


def clip(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    weight = torch.nn.Parameter(distribute_tensor(torch.ones(1, 2), mesh, [Shard(0)]))
    weight.grad = distribute_tensor(torch.ones(1, 2), mesh, [Shard(0)])
    said = ""
    try:
        torch.nn.utils.clip_grad_norm_([weight], max_norm=0.5, norm_type=math.inf)
    except RuntimeError as error:
        said = str(error).splitlines()[0]
    Path(folder, f"said-{rank}").write_text(said)
    # Where one rank raised, the other waits for it: so nobody waits for anybody at the end.


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        ranks = mp.start_processes(clip, (folder,), RANKS, join=False, start_method="fork")
        ranks.processes[-1].join()
        said = Path(folder, f"said-{RANKS - 1}").read_text()
        for process in ranks.processes:
            process.terminate()
    if said and "empty" not in said:
        raise RuntimeError(said)
    verdict = "defect" if said else "right"
    print(f"{verdict}: torch {torch.__version__}: {said or 'it clips'}")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
