"""``FSDP.clip_grad_norm_`` adds up the norms of parameters in an order that differs from rank to rank.

    python defects/fsdp1_clip_order.py

Two replicas of a model that is sharded between two ranks each. It collects the parameters in a set,
whose order is that of their addresses. So ranks with the same shard get norms that differ in the last
bits, clip by factors that do, and the replicas drift apart. In some runs addresses have the same order
everywhere; so many models are tried.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import struct
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import ShardingStrategy

RANKS = 4
MODELS = 40


def clip(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    norms = []
    # Ranks that have not all done the same before, as none have: addresses differ.
    history = []
    for number in range(MODELS):
        history += [nn.Parameter(torch.empty(0)) for _ in range(rank)]
        torch.manual_seed(number)
        sharded = FSDP(
            nn.Sequential(*(nn.Linear(8, 8) for _ in range(12))),
            device_mesh=mesh,
            sharding_strategy=ShardingStrategy.HYBRID_SHARD,
            use_orig_params=True,
            device_id=torch.device("cpu"),
        )
        sharded(torch.randn(4, 8)).square().mean().backward()
        norms.append(float(sharded.clip_grad_norm_(1.0)))
    Path(folder, f"norms-{rank}").write_bytes(struct.pack(f"{MODELS}d", *norms))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(clip, (folder,), RANKS, start_method="fork")
        norms = [
            struct.unpack(f"{MODELS}d", Path(folder, f"norms-{rank}").read_bytes())
            for rank in range(RANKS)
        ]
    wrong = [each for each in zip(*norms, strict=True) if len(set(each)) > 1]
    example = ", ".join(f"{norm:.9f}" for norm in (wrong or list(zip(*norms, strict=True)))[0])
    verdict = "defect" if wrong else "right"
    print(
        f"{verdict}: torch {torch.__version__}: {len(wrong)} of {MODELS} norms differ between ranks, "
        f"as in {example}"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
