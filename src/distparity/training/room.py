"""Whether there is room for the trajectories of a case, asked before anything is trained."""

from __future__ import annotations

import os
from pathlib import Path

from distparity.training.loop import Recipe
from distparity.training.reference import SAMPLES

__all__ = ["NoRoomError", "check"]

#: The most state that an optimizer keeps, in units of the parameters.
_STATE = 2


class NoRoomError(Exception):
    """The trajectories of a case would need more space than there is."""


def check(recipe: Recipe, parts: int, ranks: int, path: str) -> None:
    """Compare what the trajectories of a case need with what is free: disk for ``path``, and memory.

    ``parts`` is the number of parts of the batch, ``ranks`` the number of ranks in all its worlds.
    Raises :class:`NoRoomError`.
    """
    model = recipe.model()
    trained = sum(parameter.numel() for parameter in model.parameters())
    other = sum(buffer.numel() for buffer in model.buffers())
    steps = recipe.scenario.steps
    # The initial state; gradients, parameters and the optimizer's state of each step and of the end.
    run = trained * (1 + 2 * steps + _STATE * (1 + steps)) + other * (1 + steps)
    # With the gradients of each part, and of the rows.
    oracle = 8 * (run + (parts + 1) * steps * trained)
    distributed = ranks * run * recipe.dtype.itemsize
    disk = oracle + (1 + SAMPLES) * run * recipe.dtype.itemsize + distributed
    found = os.statvfs(path)
    _compare("disk space for temporary files", disk, found.f_bavail * found.f_frsize, "TMPDIR")
    _compare("memory", max(oracle, distributed), _available_memory(), "")


def _compare(what: str, need: int, free: int, setting: str) -> None:
    if need > free:
        advice = f"; {setting} chooses another disk" if setting else ""
        raise NoRoomError(
            f"the trajectories of this case need {need / 2**30:.1f} GiB of {what}, and "
            f"{free / 2**30:.1f} GiB are free: use a smaller model or fewer steps{advice}"
        )


def _available_memory() -> int:
    """The memory that processes can still get, in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 1 << 62
