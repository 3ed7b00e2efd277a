"""FSDP over tensor parallel layers loads the optimizer state of the first columns on all ranks.

    python defects/fsdp1_tp_resume.py

Two layers that are split between two ranks, and sharded between two pairs of them. ``get_state_dict``
gives DTensors of the whole; ``set_state_dict`` into a new model and optimizer brings parameters back
as they were, and momentum on the first rank of each pair alone.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

RANKS = 4


def make(mesh: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 4, bias=False))
    split = parallelize_module(
        plain, mesh["tensor"], {"0": ColwiseParallel(), "1": RowwiseParallel()}
    )
    model = FSDP(
        split, device_mesh=mesh["data"], use_orig_params=True, device_id=torch.device("cpu")
    )
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def resume(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    old, new = make(mesh), make(mesh)
    old[0](torch.ones(2, 4)).square().mean().backward()
    old[1].step()
    model, optimizer = get_state_dict(*old)
    set_state_dict(*new, model_state_dict=model, optim_state_dict=optimizer)
    errors = [0.0]
    for before, after in zip(old[0].parameters(), new[0].parameters(), strict=True):
        wanted = old[1].state[before].get("momentum_buffer")
        found = new[1].state[after].get("momentum_buffer")
        if wanted is not None and wanted.numel():
            errors.append(float((found - wanted).abs().max()))
    Path(folder, f"error-{rank}").write_text(str(max(errors)))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(resume, (folder,), RANKS, start_method="fork")
        errors = [float(Path(folder, f"error-{rank}").read_text()) for rank in range(RANKS)]
    said = ", ".join(f"{error:.3g}" for error in errors)
    wrong = any(errors)
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: momentum off by {said} on the ranks")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
