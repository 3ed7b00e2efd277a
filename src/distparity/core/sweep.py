"""A sweep of one collective over sizes: what ranks are asked, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass

from distparity.core.record import Record

__all__ = ["Measured", "Sweep"]


@dataclass(frozen=True)
class Sweep(Record):
    """Call an operation in one way with every size from one element to ``largest`` bytes a rank."""

    operation: str
    #: ``wait``, ``async`` (several calls in flight) or ``groups`` (by overlapping groups at once).
    way: str
    dtype: str
    largest: int


@dataclass(frozen=True)
class Measured(Record):
    """What one rank saw. Sizes are bytes of the larger of input and result on one rank."""

    sizes: int = 0
    #: The largest size that was right, and the first that was wrong; 0 if there was none.
    right: int = 0
    wrong: int = 0
    #: How the first wrong one was wrong, or the exception if a call raised.
    message: str = ""
    raised: str = ""
    #: Bytes per second on the busiest link at the largest size, as nccl-tests counts them.
    bandwidth: float = 0.0
