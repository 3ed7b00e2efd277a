"""Measure a device's arithmetic in one process, before any case runs on it."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["PRODUCTS", "ask", "fewest_bits", "kept_bits"]

#: What may use a coarser format than its dtype, each by a switch of its own.
PRODUCTS = ("matmul", "convolution")

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
            for how in PRODUCTS:
                bits = kept_bits(device, dtype, how)
                if bits is not None:
                    found[f"{how}_{name}_bits"] = bits
    tiny = torch.full((_SIDE,), 2.0**-130).to(device) * 1
    found["denormals"] = "kept" if bool((tiny.cpu() > 0).all()) else "flushed to zero"
    found["repeatable"] = _repeatable(device)
    return found


def fewest_bits(device: torch.device, dtype: torch.dtype) -> int:
    """How many bits of mantissa the coarsest of the device's products keeps."""
    known = (kept_bits(device, dtype, how) for how in PRODUCTS)
    return min(bits for bits in known if bits is not None)


@cache
def kept_bits(device: torch.device, dtype: torch.dtype, how: str = "matmul") -> int | None:
    """How many bits of mantissa a factor keeps in a product: 23 for float32, 10 for TF32.

    ``how`` is one of :data:`PRODUCTS`. None where the device has no convolution.
    """
    import torch

    eye = torch.eye(_SIDE, dtype=dtype)
    eye = (eye if how == "matmul" else eye[..., None, None]).to(device)
    kept = 0
    for bits in range(1, round(-math.log2(torch.finfo(dtype).eps)) + 1):
        value = torch.full((_SIDE, _SIDE), 1 + 2.0**-bits, dtype=dtype)
        try:
            product = _product(eye, value.to(device))
        except (RuntimeError, NotImplementedError):
            if how == "matmul":
                raise
            return None
        off = (product.cpu() - value).abs().max()
        # This bit is kept, even if the device is nondeterministic, and no finer bit was.
        if not off < 2.0 ** -(bits + 1):
            break
        kept = bits
    return kept


def _product(eye: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The value itself, by a product with ones and zeros: of matrices, or of a kernel of one pixel."""
    import torch

    if eye.dim() == 2:
        return eye @ value
    image = value.view(1, _SIDE, 1, _SIDE)
    return torch.nn.functional.conv2d(image, eye).view(_SIDE, _SIDE)


def _repeatable(device: torch.device) -> str:
    """Whether a sum and a product are equal bit for bit three times: "yes" or "no"."""
    import torch

    generator = torch.Generator().manual_seed(0)
    terms = torch.randn(_TERMS, generator=generator).to(device)
    square = terms[: _SIDE * _SIDE].view(_SIDE, _SIDE)
    runs = [torch.cat([terms.sum().view(1), (square @ square).flatten()]).cpu() for _ in range(3)]
    return "yes" if all(torch.equal(runs[0], run) for run in runs) else "no"
