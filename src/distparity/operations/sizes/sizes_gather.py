"""The first rank gets what each rank has."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes


class SizesGather(OverSizes):
    gets = None
    rooted = True

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        root = dist.get_process_group_ranks(group)[0]
        parts = list(taken.chunk(dist.get_world_size(group))) if dist.get_rank() == root else None
        return dist.gather(given, parts, root, group=group, async_op=later)

    def has_result(self, me: int) -> bool:
        return me == 0
