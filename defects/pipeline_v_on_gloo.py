"""``ScheduleZBVZeroBubble`` sends from a rank to itself, which gloo cannot.

    python defects/pipeline_v_on_gloo.py

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
#: Which rank has a stage: down and up again.
HOLDERS = {0: 0, 1: 1, 2: 1, 3: 0}
#: Seconds that a step may take, of which it needs a hundredth.
LIMIT = 20


def train(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=LIMIT),
    )
    mine = [stage for stage, holder in HOLDERS.items() if holder == rank]
    stages = [
        pipelining.PipelineStage(torch.nn.Linear(2, 2), stage, len(HOLDERS), torch.device("cpu"))
        for stage in mine
    ]
    kind = pipelining.ScheduleZBVZeroBubble
    told = "stage_index_to_group_rank"
    # Before 2.7 a schedule is told which rank has a stage.
    more = {told: HOLDERS} if told in inspect.signature(kind).parameters else {}
    schedule = kind(stages, MICRO_BATCHES, loss_fn=torch.nn.functional.mse_loss, **more)
    x, target = torch.ones(MICRO_BATCHES, 2), torch.zeros(MICRO_BATCHES, 2)
    said = ""
    try:
        schedule.step(*[x] * (rank == 0), target=target if rank == 0 else None)
    except (RuntimeError, TypeError) as error:
        said = str(error).splitlines()[0]
    Path(folder, f"said-{rank}").write_text(said)


def main() -> int:
    if not hasattr(pipelining, "ScheduleZBVZeroBubble"):
        print(f"right: torch {torch.__version__} has no such schedule")
        return 0
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
