"""FSDP1's ``HYBRID_SHARD`` with shards of one rank never averages gradients over the replicas.

    python defects/drawn/fsdp1_hybrid_of_one.py

With a mesh of 2 replicas of 1 rank, FSDP says that it switches to ``NO_SHARD`` "since the world size is
1", which is that of the shards. It then adds nothing up: each rank has its own gradient, over 2.

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
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import ShardingStrategy

RANKS = 2


def differentiate(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (RANKS, 1), mesh_dim_names=("replicate", "shard"))
    model = FSDP(
        torch.nn.Linear(1, 1, bias=False),
        device_mesh=mesh,
        sharding_strategy=ShardingStrategy.HYBRID_SHARD,
        use_orig_params=True,
        device_id=torch.device("cpu"),
    )
    # The gradient of the weight is the input: 1 on the first rank, 3 on the second, 2 on average.
    model(torch.full((1, 1), 1.0 + 2.0 * rank)).sum().backward()
    (gradient,) = (float(parameter.grad) for parameter in model.parameters())
    if rank == 0:
        Path(folder, "gradient").write_text(str(gradient))
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(differentiate, (folder,), RANKS, start_method="fork")
        found = float(Path(folder, "gradient").read_text())
    if found not in (0.5, 1.0, 2.0):
        raise RuntimeError(f"neither averaged nor the rank's own: {found}")
    print(f"the mean of the ranks' gradients is 2, the first rank has {found:g}")
    print("right:" if found == 2 else "defect:", f"torch {torch.__version__}")
    return int(found != 2)


if __name__ == "__main__":
    sys.exit(main())
