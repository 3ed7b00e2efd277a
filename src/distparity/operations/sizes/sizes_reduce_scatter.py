"""Every rank gets the reduction of its block of what all ranks have."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes


class SizesReduceScatter(OverSizes):
    ways = (*OverSizes.ways, "in_place")
    gives = None
    reduces = True
    parted = True

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        return dist.reduce_scatter_tensor(taken, given, op, group=group, async_op=later)

    def in_place(self, given: torch.Tensor, taken: torch.Tensor, me: int) -> tuple[Any, Any]:
        return given, given[me * len(taken) : (me + 1) * len(taken)]
