"""The functional all-gather of a tensor without dims writes where there is no memory.

    python defects/functional_all_gather_scalar.py

The shape of the result is made by multiplying the first size of the input, and there is none.

The last line begins with ``defect:`` and the exit code is 1 where the defect shows; with ``right:``
and 0 where it does not. Anything else says that nothing could be asked. It needs torch alone.
"""

import signal
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed._functional_collectives import all_gather_tensor

RANKS = 2


def gather(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    found = all_gather_tensor(torch.tensor(float(rank)), 0, dist.group.WORLD)
    torch.save(found.tolist(), f"{folder}/found-{rank}")
    dist.barrier()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        ranks = mp.start_processes(gather, (folder,), RANKS, join=False, start_method="fork")
        for process in ranks.processes:
            process.join()
        codes = [process.exitcode for process in ranks.processes]
        if codes == [0] * RANKS:
            found = str(torch.load(f"{folder}/found-0", weights_only=True))
        else:
            found = ", ".join(_name(code) for code in codes)
    wrong = any(code is not None and code < 0 for code in codes)
    verdict = "defect" if wrong else "right"
    print(f"{verdict}: torch {torch.__version__}: the ranks' 0 and 1 become {found}")
    return int(wrong)


def _name(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


if __name__ == "__main__":
    sys.exit(main())
