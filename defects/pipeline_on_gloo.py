"""``Schedule1F1B`` over gloo: it waits for one transfer of several, or sends 8 bytes to who asked for 4.

    python defects/pipeline_on_gloo.py

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import datetime
import inspect
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import pipelining

RANKS = 2
MICRO_BATCHES = 4
#: Seconds that a step may take, of which it needs a hundredth.
LIMIT = 30


def train(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=LIMIT),
    )
    takes = inspect.signature(pipelining.PipelineStage).parameters["input_args"]
    # Before 2.5 a stage is told what it will be given.
    needed = takes.default is inspect.Parameter.empty
    more = {"input_args": (torch.ones(1, 2),)} if needed else {}
    layer = torch.nn.Linear(2, 2)
    stage = pipelining.PipelineStage(layer, rank, RANKS, torch.device("cpu"), **more)
    loss = torch.nn.functional.mse_loss
    schedule = pipelining.Schedule1F1B(stage, MICRO_BATCHES, loss_fn=loss)
    x, target = torch.ones(MICRO_BATCHES, 2), torch.zeros(MICRO_BATCHES, 2)
    said = ""
    try:
        for _ in range(2):
            schedule.step(*[x] * (rank == 0), target=target if rank else None)
    except RuntimeError as error:
        said = str(error).splitlines()[0]
    Path(folder, f"said-{rank}").write_text(said)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        ranks = mp.start_processes(train, (folder,), RANKS, join=False, start_method="fork")
        for process in ranks.processes:
            process.join(2 * LIMIT)
            process.kill()
            process.join()
        found = [path.read_text() for path in sorted(Path(folder).glob("said-*"))]
        found += [f"died: {one.exitcode}" for one in ranks.processes if one.exitcode]
    wrong = found != [""] * RANKS
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: {'; '.join(filter(None, found)) or 'it trains'}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
