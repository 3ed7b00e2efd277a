"""Seeded delays (``--perturb``): ranks wait before they call, and their devices are busy meanwhile.

Training that waits for what it uses computes the same, however late a rank or a device is. What forgets
to wait computes something else, but only if the other is late: these delays make it late.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distparity.devices.base import Device

__all__ = ["BUDGET", "Delays", "begin", "choose", "chosen", "none", "pause", "pause_to_copy"]

#: The most seconds that a rank waits in one task, and that its device is kept busy: before calls, and
#: again before copies.
BUDGET = 1.0
#: The longest single delay, in seconds, and how many calls have one.
LONGEST = 0.02
SHARE = 0.3


class Delays:
    """The delays of one rank in one task: ``words`` decide which calls have one, and how long."""

    def __init__(self, kind: Device, device: Any, words: str) -> None:
        self._kind, self._device = kind, device
        self._draw = random.Random(words)  # noqa: S311  nothing secret about it
        self._left = {"host": BUDGET, "device": BUDGET}

    def pause(self) -> None:
        """Keep the device busy, then wait; each only sometimes, and never beyond the budget."""
        if seconds := self._drawn("device"):
            self._kind.keep_busy(self._device, seconds)
        if seconds := self._drawn("host"):
            time.sleep(seconds)

    def _drawn(self, who: str) -> float:
        # Both numbers are always drawn, so that the budget of one does not move the other.
        wanted, seconds = self._draw.random() < SHARE, self._draw.random() * LONGEST
        if not wanted:
            return 0.0
        seconds = min(seconds, self._left[who])
        self._left[who] -= seconds
        return seconds


#: One for a run: ranks are forked from the process in which it is chosen.
_seed: int | None = None
#: What the present task has, by where the delays are: copies are many, and must not use up the others.
_now: dict[str, Delays] = {}
#: Whether there are no delays at the moment.
_resting = False


def choose(seed: int | None) -> None:
    """Set the seed for this process and those that are forked from it; None for no delays."""
    global _seed  # noqa: PLW0603
    _seed = seed


def chosen() -> bool:
    """Whether there are delays in this run."""
    return _seed is not None


def begin(kind: Device, device: Any, rank: int, task: str) -> None:
    """Draw the delays of this rank's next task anew; ``task`` is what the task is known by."""
    _now.clear()
    if _seed is not None:
        for where in ("call", "copy"):
            _now[where] = Delays(kind, device, f"{_seed} {rank} {task} {where}")


def pause() -> None:
    """Where a delay may be: before a collective, a forward, a step, a reload."""
    _pause("call")


def pause_to_copy() -> None:
    """Where a delay may be: before a copy, and before memory is given back or taken again."""
    _pause("copy")


def _pause(where: str) -> None:
    # What keeps a device busy may copy.
    if where in _now and not _resting:
        with none():
            _now[where].pause()


@contextmanager
def none() -> Iterator[None]:
    """No delays within: what is done here is not the training's."""
    global _resting  # noqa: PLW0603
    before, _resting = _resting, True
    try:
        yield
    finally:
        _resting = before
