"""Every rank gets its block of what the first rank has."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes, divided


class SizesScatter(OverSizes):
    gives = None
    parted = True
    rooted = True

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        root, parts = divided(given, group)
        return dist.scatter(taken, parts, root, group=group, async_op=later)
