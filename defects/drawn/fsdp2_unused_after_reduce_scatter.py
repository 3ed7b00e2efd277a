"""FSDP2 forgets a gradient that was reduced within the shards only, if the last micro-batch has none.

    python defects/drawn/fsdp2_unused_after_reduce_scatter.py

On a mesh of replicas of shards, ``set_requires_all_reduce(False)`` puts off the reduction over the
replicas to the last micro-batch. A unit that only an earlier micro-batch uses has no gradient at all in
the end: its part of the step is lost without a word.

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
from torch.distributed.fsdp import fully_shard

RANKS = 4


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.always = torch.nn.Linear(4, 4)
        self.sometimes = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, *, both: bool) -> torch.Tensor:
        x = self.always(x)
        return self.sometimes(x) if both else x


def differentiate(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    model = Model()
    for module in (model.always, model.sometimes, model):
        fully_shard(module, mesh=mesh)
    for module in (model.always, model.sometimes, model):
        # gloo has no average.
        module.set_force_sum_reduction_for_comms(True)
    for last in (False, True):
        model.set_requires_all_reduce(last)
        model(torch.ones(2, 4), both=not last).sum().backward()
    if rank == 0:
        Path(folder, "there").write_text(str(model.sometimes.weight.grad is not None))
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(differentiate, (folder,), RANKS, start_method="fork")
        there = Path(folder, "there").read_text() == "True"
    print(f"the unit that the first micro-batch used has a gradient: {there}")
    print("right:" if there else "defect:", f"torch {torch.__version__}")
    return int(not there)


if __name__ == "__main__":
    sys.exit(main())
