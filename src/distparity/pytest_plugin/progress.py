"""The progress of a run and the remaining time, on a terminal, after pytest's own output."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TextIO

__all__ = ["Progress"]

_GAP = "  "


class Progress:
    """The progress, shown after pytest's own output and removed before pytest continues.

    Only for terminals, because it moves the cursor. ``stream`` is that of pytest's terminal writer.
    """

    #: Save the cursor and restore it; erase to the end of the line.
    _SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"
    #: The first cases and seconds, in which torch is imported and the first world starts, say nothing
    #: about the rate of a run.
    _CASES, _SECONDS = 5, 5.0

    def __init__(
        self, stream: TextIO, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self.done = 0
        self._stream = stream
        self._clock = clock
        self._begun = clock()
        self._shown = False

    @staticmethod
    def fits(stream: TextIO) -> bool:
        """Whether the stream is a terminal that can move its cursor."""
        return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def show(self, column: int, width: int) -> None:
        """Show the progress; pytest's cursor is at ``column`` of ``width``."""
        room = width - column - 1 - len(_GAP)
        # Do not cut off a number: it would be another number.
        text = next((text for text in self.texts() if len(text) <= room), "")
        if self.done < self.total and text:
            self._stream.write(f"{self._SAVE}{self._ERASE}{_GAP}{text}{self._RESTORE}")
            self._stream.flush()
            self._shown = True

    def clear(self) -> None:
        """Remove the progress."""
        if self._shown:
            self._stream.write(self._ERASE)
            self._stream.flush()
            self._shown = False

    def texts(self) -> list[str]:
        """``41 of 178, about 2 min left``, and shorter texts if there is no room for that."""
        elapsed = self._clock() - self._begun
        count = f"{self.done} of {self.total}"
        if self.done < self._CASES or elapsed < self._SECONDS:
            return [count]
        left = f"{_about(elapsed / self.done * (self.total - self.done))} left"
        return [f"{count}, {left}", left, count]


def _about(seconds: float) -> str:
    if seconds < 10:
        return "a few seconds"
    if seconds < 60:
        return f"about {round(seconds / 10) * 10} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
