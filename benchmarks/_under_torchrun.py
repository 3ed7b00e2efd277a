"""A rank that ``torchrun`` started: run the cases in the process group that it describes."""

from __future__ import annotations

import _cases
import torch.distributed as dist


def main() -> None:
    cases = _cases.asked()
    _cases.prepare()
    dist.init_process_group("gloo")
    for case in cases:
        _cases.run_in_rank(case, dist.get_rank())
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
