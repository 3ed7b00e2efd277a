"""What is wrong with the device: ``SIM_FAULT`` in the environment, read once.

=============== ====================================================================================
``drop-rank``   sums over ranks leave out what the last rank gave
``tf32``        float32 matrix products see their factors with a mantissa of 10 bits
``tf32-unless-exact`` the same until it is told to be exact
``async-copy``  the copy that brings a sum over ranks is not waited for: it lands sixteen operations
                later, and who reads before that reads what was there
``hang``        the last rank never comes back from its first sum over ranks
``die``         the last rank's process aborts after 100 operations
``waver``       matrix products come out different in the last bit from time to time
=============== ====================================================================================
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import torch

__all__ = ["FAULT", "hang", "land", "late", "lose", "tick", "truncate", "waver"]

KNOWN = ("", "drop-rank", "tf32", "tf32-unless-exact", "async-copy", "hang", "die", "waver")
FAULT = os.environ.get("SIM_FAULT", "")
if FAULT not in KNOWN:
    raise ImportError(f"SIM_FAULT={FAULT}: not one of {', '.join(KNOWN[1:])}")
_LIFE = 100
_LATENESS = 16

#: Whether this process is the last of several ranks; the process group says so.
last_rank = False
#: Whether the device was told to compute as exactly as it can.
exact = False
_operations = 0
#: Copies under way, each with the number of operations that it still takes.
_pending: list[tuple[int, Callable[[], object]]] = []


def truncate(tensor: torch.Tensor) -> torch.Tensor:
    """A float32 CPU tensor rounded to nearest at 10 bits of mantissa."""
    coarse = FAULT == "tf32" or (FAULT == "tf32-unless-exact" and not exact)
    if not coarse or tensor.dtype != torch.float32:
        return tensor
    bits = tensor.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def waver(product: torch.Tensor) -> None:
    """Round some elements of a product to a neighbour of what they should be, others each time."""
    if FAULT == "waver":
        chance = torch.Generator()
        chance.seed()
        off = torch.randint(-1, 2, product.shape, generator=chance)
        product.mul_(1 + off * torch.finfo(product.dtype).eps)


def lose(tensor: torch.Tensor) -> None:
    """Zero what the last rank gives to a sum."""
    if FAULT == "drop-rank" and last_rank:
        tensor.zero_()


def hang() -> None:
    while FAULT == "hang" and last_rank:
        time.sleep(3600)


def tick() -> None:
    """Count an operation; the device may not survive it."""
    global _operations  # noqa: PLW0603  a process has one device
    if FAULT == "die" and last_rank:
        _operations += 1
        if _operations == _LIFE:
            print("sim: device 0 is lost", file=sys.stderr, flush=True)
            os.abort()


def late(copy: Callable[[], object]) -> None:
    """Do a copy: now, or some operations later."""
    if FAULT == "async-copy":
        _pending.append((_LATENESS, copy))
    else:
        copy()


def land(steps: int = _LATENESS) -> None:
    """Let time pass, in operations; the default waits for every copy."""
    under_way = [(left - steps, copy) for left, copy in _pending]
    _pending[:] = [(left, copy) for left, copy in under_way if left > 0]
    for left, copy in under_way:
        if left <= 0:
            copy()
