"""A rank that has no shard of a tensor of FSDP cannot load a distributed checkpoint of an optimizer.

    python defects/fsdp1_checkpoint_without_shard.py

A weight of one row among two ranks: on the second, what it loads into lacks a key of the checkpoint,
which is taken for one of an older format, where the optimizer's groups had other keys. With torch 2.4
it raises before that, when it is asked for its state.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import re
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

RANKS = 2


def resume(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    model = FSDP(torch.nn.Linear(2, 1, bias=False), device_id=torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    said = ""
    try:
        weights, momentum = get_state_dict(model, optimizer)
        saved = {"model": weights, "optimizer": momentum}
        checkpoint.save(saved, checkpoint_id=f"{folder}/checkpoint")
        checkpoint.load(saved, checkpoint_id=f"{folder}/checkpoint")
    except (NotImplementedError, checkpoint.CheckpointException) as error:
        said = str(error)
    Path(folder, f"said-{rank}").write_text(said)
    # Where one rank raised, the other waits for it: so nobody waits for anybody at the end.


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        ranks = mp.start_processes(resume, (folder,), RANKS, join=False, start_method="fork")
        ranks.processes[-1].join()
        said = Path(folder, f"said-{RANKS - 1}").read_text()
        for process in ranks.processes:
            process.terminate()
    told = re.findall(
        r"Missing key in checkpoint state_dict: optimizer\..*|Only single local shard.*", said
    )
    if said and not told:
        raise RuntimeError(said)
    verdict = "defect" if told else "right"
    print(f"{verdict}: torch {torch.__version__}: {told[0] if told else 'it is loaded'}")
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
