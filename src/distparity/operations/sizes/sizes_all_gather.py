"""Every rank gets what all ranks have, in their order."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes


class SizesAllGather(OverSizes):
    ways = (*OverSizes.ways, "in_place")
    gets = None

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        return dist.all_gather_into_tensor(taken, given, group=group, async_op=later)

    def in_place(self, given: torch.Tensor, taken: torch.Tensor, me: int) -> tuple[Any, Any]:
        # As FSDP calls it: a rank's own part is where it will be in the result.
        return taken[me * len(given) : (me + 1) * len(given)].copy_(given), taken
