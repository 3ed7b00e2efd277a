"""The exact value of a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Exact"]


@dataclass(frozen=True)
class Exact:
    """The right result of a check, on the CPU."""

    #: The exact value: float64, int64 or bool, in the result's shape.
    value: torch.Tensor
    #: The dtype that the result must have.
    dtype: torch.dtype
    #: The allowed absolute error of each element: float64, of a shape that expands to ``value``'s;
    #: None for equal bit for bit.
    allowed: torch.Tensor | None = None
