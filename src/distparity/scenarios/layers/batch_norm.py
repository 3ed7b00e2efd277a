"""Batch normalisation over the rows of all ranks, compared with one process that has the whole batch.

``SyncBatchNorm`` is what a user converts to. In one process it is plain batch normalisation.
"""

from __future__ import annotations

from torch import nn

from distparity.scenarios.calls.basic import Basic


class BatchNorm(Basic):
    rows_per_rank = 6
    traits = ("sync_batch_norm",)
    divisible = False

    def model(self) -> nn.Module:
        # Without a bias, because batch normalisation subtracts it with the mean.
        first = nn.Linear(6, 8, bias=False)
        model = nn.Sequential(first, nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted

    def units(self, model: nn.Module) -> list[nn.Module]:
        return [model[0]]  # type: ignore[index]
