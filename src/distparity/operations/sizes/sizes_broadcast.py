"""Every rank gets what the first rank has, in its own memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes


class SizesBroadcast(OverSizes):
    rooted = True

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        root = dist.get_process_group_ranks(group)[0]
        if dist.get_rank() == root:
            taken.copy_(given)
        return dist.broadcast(taken, root, group=group, async_op=later)
