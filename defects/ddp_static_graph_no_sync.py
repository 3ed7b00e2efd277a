"""DDP with ``static_graph=True`` raises when its first backward is inside ``no_sync()``.

    python defects/ddp_static_graph_no_sync.py

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

RANKS = 2


def accumulate(rank: int, folder: str) -> None:
    """Two micro-batches, of which only the second is exchanged."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    model = DistributedDataParallel(torch.nn.Linear(1, 1), static_graph=True)
    said = ""
    try:
        with model.no_sync():
            model(torch.ones(1, 1)).sum().backward()
        model(torch.ones(1, 1)).sum().backward()
    except RuntimeError as error:
        said = str(error)
    if rank == 0:
        Path(folder, "said").write_text(said)
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(accumulate, (folder,), RANKS, start_method="fork")
        said = Path(folder, "said").read_text()
    if said and "expect_autograd_hooks_ INTERNAL ASSERT" not in said:
        raise RuntimeError(said)
    verdict = "defect" if said else "right"
    print(f"{verdict}: torch {torch.__version__}: {said.splitlines()[0] if said else 'it runs'}")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
