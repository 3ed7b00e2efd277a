"""Whether a device is deterministic: the same training three times in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from distparity.training.trajectory import Tensors, Trajectory
from distparity.verification.tolerance import quantities

__all__ = ["measure"]


def measure(first: Trajectory, more: Sequence[Trajectory]) -> tuple[list[Trajectory], float]:
    """Compare repeated runs with the first; returns those that differ, and by how much.

    The number is the largest difference of two elements, relative to the largest element of their
    tensor; 0 means equal bit for bit. Runs that differ are samples of rounding like the other
    reference runs: the device chose another order for their sums.
    """
    far = [(max(_differences(first, run), default=0.0), run) for run in more]
    return [run for off, run in far if off], max((off for off, _ in far), default=0.0)


def _differences(one: Trajectory, other: Trajectory) -> Iterator[float]:
    for (_, _, mine), (_, _, theirs) in zip(quantities(one), quantities(other), strict=True):
        yield from _between(mine, theirs)


def _between(mine: Tensors, theirs: Tensors) -> Iterator[float]:
    for name, value in mine.items():
        again = theirs.get(name)
        if value is None or again is None or torch.equal(value, again):
            continue
        scale = float(value.double().abs().max()) or 1.0
        yield float((value.double() - again.double()).abs().max()) / scale
