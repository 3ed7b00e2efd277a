"""The maximum of a DTensor raises on a rank whose shard is empty, and leaves the others waiting.

    python defects/dtensor_max_of_empty_shard.py

So does its maximum norm.

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
    from torch.distributed.tensor import Shard, distribute_tensor
except ImportError:  # before 2.5
    from torch.distributed._tensor import Shard, distribute_tensor

RANKS = 2


def largest(rank: int, folder: str) -> None:
    """Of a tensor of one element, which the first rank has."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    x = distribute_tensor(torch.ones(1), mesh, [Shard(0)])
    said = "no error"
    try:
        found = x.max()
    except RuntimeError as error:
        said = str(error).splitlines()[0]
    else:
        # Whoever did not raise would wait here for who did: its part is all that is looked at.
        found.to_local()
    Path(folder, f"said {rank}").write_text(said)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(largest, (folder,), RANKS, start_method="fork")
        said = [Path(folder, f"said {rank}").read_text() for rank in range(RANKS)]
    wrong = len(set(said)) > 1
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {'; '.join(said)}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
