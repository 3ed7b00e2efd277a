"""What a tensor should be."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Exact"]


@dataclass(frozen=True)
class Exact:
    """What a tensor should be: its value in float64, int64 or bool, and the dtype it comes in.

    ``allowed`` is the largest absolute error of each element, in float64; None: equal to the bit.
    """

    value: torch.Tensor
    dtype: torch.dtype
    allowed: torch.Tensor | None = None
