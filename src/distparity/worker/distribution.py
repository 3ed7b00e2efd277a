"""Observe in a rank whether its training was distributed, and on the device.

Process groups count their own collectives, whoever begins them. This works without torch's flight
recorder and without our own log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from distparity.torch_support import private
from distparity.worker.collective_log import sequence

if TYPE_CHECKING:
    from torch import nn

    from distparity.devices.context import RankContext
    from distparity.scenarios import Batch
    from distparity.strategies import Strategy

__all__ = ["Observer"]


class Observer:
    """An observer to pass to training as ``watch``: it is called before every step."""

    def __init__(self) -> None:
        self._looks: list[dict[tuple[int, ...], int]] = []
        self._on: set[str] = set()

    def __call__(self, model: nn.Module, batch: Batch) -> None:
        self._looks.append(_counted())
        self._on |= {parameter.device.type for parameter in model.parameters()}

    def told(self, strategy: Strategy, context: RankContext, rows: int) -> dict[str, Any]:
        """The observations as JSON: groups that communicated, this rank's rows, parameters' devices.

        ``talked`` lists the ranks of every group that began a collective between the first step and
        the last; None if a group does not count. Collectives after the last step only read results,
        and are not part of training. ``rows`` is the number of rows of the global batch.
        """
        looks = self._looks if len(self._looks) > 1 else [*self._looks, _counted()]
        before, after = looks[0], looks[-1]
        known = all(count >= 0 for count in after.values())
        mine = strategy.rows((torch.arange(rows, device="cpu"),), context)[0]
        wanted = strategy.parameters_on or context.kind.computes_on or context.kind.kind
        return {
            "talked": [list(group) for group in after if after[group] > before.get(group, 0)]
            if known
            else None,
            "rows": mine.tolist(),
            "of": rows,
            "rows_shared_by": strategy.rows_shared_by(context),
            "parameters_on": strategy.parameters_on,
            "elsewhere": sorted(self._on - {wanted, "meta"}),
            "device": wanted,
        }


def _counted() -> dict[tuple[int, ...], int]:
    """The number of collectives begun by each group of this rank; -1 if a group does not count."""
    found: dict[tuple[int, ...], int] = {}
    groups = private.process_groups()
    if groups is None:
        return {(): -1}
    for group in groups:
        ranks = tuple(sorted(dist.get_process_group_ranks(group)))
        count = sequence(group, -1)
        known = found.get(ranks, 0)
        found[ranks] = -1 if -1 in (count, known) else known + count
    return found
