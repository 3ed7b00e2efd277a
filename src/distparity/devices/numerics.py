"""Measure a device's arithmetic in one process, before any case runs on it."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["ask", "kept_bits"]

#: The side of the matrices, and the terms of a sum: large enough for the fast kernels.
_SIDE = 128
_TERMS = 1 << 16


def ask(device: torch.device, lacks: dict[str, str]) -> dict[str, Any]:
    """Facts by name: the bits that matrix products keep, denormals, and repeatability of sums."""
    import torch

    found: dict[str, Any] = {}
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        if name not in lacks:
            found[f"matmul_{name}_bits"] = kept_bits(device, dtype)
    tiny = torch.full((_SIDE,), 2.0**-130).to(device) * 1
    found["denormals"] = "kept" if bool((tiny.cpu() > 0).all()) else "flushed to zero"
    found["repeatable"] = _repeatable(device)
    return found


@cache
def kept_bits(device: torch.device, dtype: torch.dtype) -> int:
    """The bits of mantissa that a factor keeps in a matrix product: 23 for float32, 10 for TF32."""
    import torch

    eye = torch.eye(_SIDE, dtype=dtype).to(device)
    kept = 0
    for bits in range(1, round(-math.log2(torch.finfo(dtype).eps)) + 1):
        value = torch.full((_SIDE, _SIDE), 1 + 2.0**-bits, dtype=dtype)
        off = ((eye @ value.to(device)).cpu() - value).abs().max()
        # This bit is kept, even if the device is nondeterministic, and no finer bit was.
        if not off < 2.0 ** -(bits + 1):
            break
        kept = bits
    return kept


def _repeatable(device: torch.device) -> str:
    """Whether a sum and a product are equal bit for bit three times: "yes" or "no"."""
    import torch

    generator = torch.Generator().manual_seed(0)
    terms = torch.randn(_TERMS, generator=generator).to(device)
    square = terms[: _SIDE * _SIDE].view(_SIDE, _SIDE)
    runs = [torch.cat([terms.sum().view(1), (square @ square).flatten()]).cpu() for _ in range(3)]
    return "yes" if all(torch.equal(runs[0], run) for run in runs) else "no"
