"""The first rank gets the reduction of what all ranks have, in its own memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes


class SizesReduce(OverSizes):
    reduces = True
    rooted = True
    to_root = True

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        taken.copy_(given)
        root = dist.get_process_group_ranks(group)[0]
        return dist.reduce(taken, root, op, group=group, async_op=later)
