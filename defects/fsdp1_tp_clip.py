"""``FSDP.clip_grad_norm_`` over tensor parallel layers takes each rank's own column for the whole norm.

    python defects/fsdp1_tp_clip.py

Two layers that are split between two ranks, and sharded between two pairs of them. "The norm is
computed over all parameters' gradients as viewed as a single vector", but it is reduced among those
ranks alone between which FSDP shards: the ranks that have the other columns get another norm, and
clip by another factor.

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
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

RANKS = 4


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 4, bias=False))


def clip(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    split = parallelize_module(
        model(), mesh["tensor"], {"0": ColwiseParallel(), "1": RowwiseParallel()}
    )
    whole = FSDP(
        split, device_mesh=mesh["data"], use_orig_params=True, device_id=torch.device("cpu")
    )
    # The same rows everywhere, so that the mean over ranks is each rank's own gradient.
    whole(torch.ones(2, 4)).square().mean().backward()
    found = whole.clip_grad_norm_(1e9)
    Path(folder, f"norm-{rank}").write_text(str(float(found)))


def main() -> int:
    plain = model()
    plain(torch.ones(2, 4)).square().mean().backward()
    right = float(nn.utils.clip_grad_norm_(plain.parameters(), 1e9))
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(clip, (folder,), RANKS, start_method="fork")
        norms = [float(Path(folder, f"norm-{rank}").read_text()) for rank in range(RANKS)]
    wrong = any(abs(norm - right) > 1e-4 * right for norm in norms)
    said = ", ".join(f"{norm:.5f}" for norm in norms)
    verdict = "defect" if wrong else "right"
    print(
        f"{verdict}: torch {torch.__version__}: norms {said} on the ranks, {right:.5f} in one process"
    )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
