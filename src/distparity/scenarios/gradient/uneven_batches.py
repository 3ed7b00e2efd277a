"""Some ranks run out of batches before the others; missing rows count, with a gradient of zero.

All samples weigh the same: the gradient is divided by as many ranks as there were in the beginning.
"""

from __future__ import annotations

from typing import ClassVar

from distparity.scenarios.base import Batch
from distparity.scenarios.calls.basic import Basic


class UnevenBatches(Basic):
    steps = 4
    runs_out_after: ClassVar[int | None] = 1

    def batch(self, rows: int) -> Batch:
        # All rows have similar gradients, so that those of few rows do not cancel.
        x, target = super().batch(rows)
        return x, target + 1
