"""The first rank gets what each rank has."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes, divided


class SizesGather(OverSizes):
    gets = None
    rooted = True
    to_root = True

    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        root, parts = divided(taken, group)
        return dist.gather(given, parts, root, group=group, async_op=later)
