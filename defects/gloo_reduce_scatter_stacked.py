"""gloo's ``reduce_scatter_tensor`` of a stack of the ranks' parts, which its documentation allows.

    python defects/gloo_reduce_scatter_stacked.py

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import signal
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 2


def reduce_scatter(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    mine = torch.zeros(3)
    dist.reduce_scatter_tensor(mine, torch.ones(RANKS, 3))
    torch.save(mine.tolist(), f"{folder}/found-{rank}")
    dist.barrier()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        ranks = mp.start_processes(
            reduce_scatter, (folder,), RANKS, join=False, start_method="fork"
        )
        for process in ranks.processes:
            process.join()
        codes = [process.exitcode for process in ranks.processes]
        if codes == [0] * RANKS:
            found = str(torch.load(f"{folder}/found-0", weights_only=True))
        else:
            found = ", ".join(_name(code) for code in codes)
    wrong = any(code is not None and code < 0 for code in codes)
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: of ones a rank gets {found}")
    return int(wrong)


def _name(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


if __name__ == "__main__":
    sys.exit(main())
