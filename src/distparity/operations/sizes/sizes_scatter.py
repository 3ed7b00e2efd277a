"""Every rank gets its block of what the first rank has."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes


class SizesScatter(OverSizes):
    gives = None
    parted = True
    rooted = True

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        root = dist.get_process_group_ranks(group)[0]
        parts = list(given.chunk(dist.get_world_size(group))) if dist.get_rank() == root else None
        return dist.scatter(taken, parts, root, group=group, async_op=later)
