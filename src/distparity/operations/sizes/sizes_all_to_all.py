"""Every rank gets its block of what each rank has, in the order of the ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes


class SizesAllToAll(OverSizes):
    gives = None
    gets = None
    parted = True

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        return dist.all_to_all_single(taken, given, group=group, async_op=later)
