"""``FSDP.summon_full_params(with_grads=True)``: a rank that has no gradient sends float32 for it.

    python defects/fsdp1_full_gradients.py

Two elements among four ranks: the last two have nothing but padding. In float64 the all-gather that
brings gradients together then has tensors of two dtypes, and the processes end by a signal.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

RANKS = 4


def gather(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    layer = torch.nn.Linear(2, 1, bias=False).double()
    model = FSDP(layer, use_orig_params=True, device_id=torch.device("cpu"))
    model(torch.ones(1, 2).double()).sum().backward()
    with FSDP.summon_full_params(model, writeback=False, with_grads=True):
        found = layer.weight.grad.tolist()
    Path(folder, f"found-{rank}").write_text(str(found))
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    wanted = str([[1.0, 1.0]])
    with tempfile.TemporaryDirectory() as folder:
        said = ""
        try:
            mp.start_processes(gather, (folder,), RANKS, start_method="fork")
        except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
            said = str(error).strip().splitlines()[-1]
        found = [path.read_text() for path in sorted(Path(folder).glob("found-*"))]
    wrong = found != [wanted] * RANKS
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {said or found}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
