"""Every rank gets what the rank before it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from distparity.operations.sizes.base import OverSizes


class SizesSendRecv(OverSizes):
    def call(
        self, given: torch.Tensor, taken: torch.Tensor, op: Any, group: Any, later: bool
    ) -> Any:
        team = dist.get_process_group_ranks(group)
        me = team.index(dist.get_rank())
        if len(team) == 1:
            # No rank sends to itself.
            taken.copy_(given)
            return None
        works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, given, team[(me + 1) % len(team)], group),
                dist.P2POp(dist.irecv, taken, team[me - 1], group),
            ]
        )
        if later:
            return works
        for work in works:
            work.wait()
        return None

    def source(self, me: int, block: int, ranks: int) -> tuple[Sequence[int], int]:
        return [(me - 1) % ranks], 0
