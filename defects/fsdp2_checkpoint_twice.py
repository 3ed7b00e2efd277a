"""A ``fully_shard`` unit that is called twice, and checkpointed: the second recomputation raises.

    python defects/fsdp2_checkpoint_twice.py

The unit is sharded again after the backward of the first call, and the recomputation of the other
does not gather it.

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
from torch.utils.checkpoint import checkpoint

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:  # before 2.6
    from torch.distributed._composable.fsdp import fully_shard

RANKS = 2


class Twice(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unit = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once = checkpoint(self._part, x, use_reentrant=False)
        twice = checkpoint(self._part, once, use_reentrant=False)
        out: torch.Tensor = once + twice
        return out

    def _part(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.unit(x))


def train(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    said = ""
    try:
        mesh = init_device_mesh("cpu", (RANKS,))
        model = Twice()
        fully_shard(model.unit, mesh=mesh)
        fully_shard(model, mesh=mesh)
        model(torch.ones(2, 2)).sum().backward()
    except Exception as error:
        said = f"{type(error).__name__} {error}".splitlines()[0]
    if rank == 0:
        Path(folder, "said").write_text(said)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(train, (folder,), RANKS, start_method="fork")
        said = Path(folder, "said").read_text()
    # Before 2.7 fully_shard refuses a CPU: what is asked here does not come up.
    wrong = "got mixed torch.Tensor and DTensor" in said
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {said or 'it trains'}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
