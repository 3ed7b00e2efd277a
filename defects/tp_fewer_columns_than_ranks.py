"""SGD of a layer that is split among more ranks than it has columns raises.

    python defects/tp_fewer_columns_than_ranks.py

The layer's gradient is replicated, and since torch 2.12 it cannot be added in place to a parameter that
is split. Before, the step was right.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

try:
    from torch.distributed.tensor import Replicate
except ImportError:  # before 2.5
    from torch.distributed._tensor import Replicate

RANKS = 2


def step(rank: int, folder: str) -> None:
    """Of a layer with one column, which the first rank has."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS,))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1))
    plan = {"0": ColwiseParallel(output_layouts=Replicate())}
    split = parallelize_module(model, mesh, plan)
    split(torch.ones(2, 4)).sum().backward()
    said = "no error"
    try:
        torch.optim.SGD(split.parameters(), lr=0.1).step()
    except RuntimeError as error:
        said = str(error).splitlines()[0]
    Path(folder, f"said {rank}").write_text(said)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(step, (folder,), RANKS, start_method="fork")
        said = {Path(folder, f"said {rank}").read_text() for rank in range(RANKS)}
    wrong = said != {"no error"}
    print(f"{'defect' if wrong else 'right'}: torch {torch.__version__}: {'; '.join(said)}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
