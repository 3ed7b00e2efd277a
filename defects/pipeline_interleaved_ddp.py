"""``ScheduleInterleaved1F1B`` of stages in DDP: the second step runs into an assertion of the reducer.

    python defects/pipeline_interleaved_ddp.py

Four stages on two ranks, each stage with a replica on two other ranks.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import datetime
import inspect
import re
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import pipelining
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

RANKS = 4
STAGES = 4
MICRO_BATCHES = 4
#: Seconds for two steps, which need a tenth.
LIMIT = 60
#: Over gloo they never end before 2.8, which is another program's: pipeline_on_gloo.py.
STANDS_STILL = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8)


def train(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=RANKS,
        # Where one rank raises, the others wait for it.
        timeout=datetime.timedelta(seconds=15),
    )
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "stage"))
    schedule = _schedule(mesh, rank % 2)
    x, target = torch.ones(MICRO_BATCHES, 2), torch.zeros(MICRO_BATCHES, 2)
    said = ""
    Path(folder, f"ready-{rank}").touch()
    try:
        for _ in range(2):
            schedule.step(*[x] * (rank % 2 == 0), target=target if rank % 2 else None)
    except Exception as error:
        said = f"{error} {error.__cause__}"
    Path(folder, f"said-{rank}").write_text(said)


def _schedule(mesh: dist.device_mesh.DeviceMesh, column: int) -> pipelining.ScheduleInterleaved1F1B:
    """The schedule of a rank that has the stages ``column`` and ``column + 2``."""
    stages = []
    for number in (column, column + 2):
        layer = DistributedDataParallel(
            torch.nn.Linear(2, 2), process_group=mesh["data"].get_group()
        )
        takes = inspect.signature(pipelining.PipelineStage).parameters["input_args"]
        # Before 2.5 a stage is told what it will be given.
        needed = takes.default is inspect.Parameter.empty
        more = {"input_args": (torch.ones(1, 2),)} if needed else {}
        stages.append(
            pipelining.PipelineStage(
                layer,
                number,
                STAGES,
                torch.device("cpu"),
                group=mesh["stage"].get_group(),
                **more,
            )
        )
    return pipelining.ScheduleInterleaved1F1B(
        stages, MICRO_BATCHES, loss_fn=torch.nn.functional.mse_loss
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        ranks = mp.start_processes(train, (folder,), RANKS, join=False, start_method="fork")
        _wait(ranks.processes, Path(folder))
        said = [path.read_text() for path in sorted(Path(folder).glob("said-*"))]
    told = re.search("rebuilt_param_indices_.size.* INTERNAL ASSERT FAILED.*", " ".join(said))
    trains = said == [""] * RANKS
    if not (told or trains or STANDS_STILL):
        print(f"torch {torch.__version__}: neither trained nor refused in {LIMIT} s: {said}")
        return 2
    verdict = "defect" if told else "right"
    found = told[0] if told else "it trains" if trains else "it stands still"
    print(f"{verdict}: torch {torch.__version__}: {found}")
    return int(told is not None)


def _wait(ranks: list[mp.Process], folder: Path) -> None:
    """Wait for the ranks to end, but no longer than a step may take once all are there."""
    while len(list(folder.glob("ready-*"))) < RANKS and any(rank.is_alive() for rank in ranks):
        time.sleep(0.1)
    end = time.monotonic() + LIMIT
    for rank in ranks:
        rank.join(max(0, end - time.monotonic()))
        rank.kill()


if __name__ == "__main__":
    sys.exit(main())
