"""How far a run is and the time that is left, on a terminal, behind what pytest writes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TextIO

__all__ = ["Progress"]

_GAP = "  "


class Progress:
    """How far the run is, behind what pytest writes; gone before pytest writes on.

    Only on a terminal: it moves the cursor. ``stream`` is what pytest's terminal writer writes to.
    """

    #: Save the cursor and restore it; erase to the end of the line.
    _SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"
    #: Before these the rate of a run says nothing: torch's import and the first world's start.
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
        """Show how far it is; pytest's cursor is at ``column`` of ``width``."""
        room = width - column - 1 - len(_GAP)
        # A number that is cut off is another number.
        text = next((text for text in self.texts() if len(text) <= room), "")
        if self.done < self.total and text:
            self._stream.write(f"{self._SAVE}{self._ERASE}{_GAP}{text}{self._RESTORE}")
            self._stream.flush()
            self._shown = True

    def clear(self) -> None:
        """Take away what is shown."""
        if self._shown:
            self._stream.write(self._ERASE)
            self._stream.flush()
            self._shown = False

    def texts(self) -> list[str]:
        """``41 of 178, about 2 min left``, and shorter ones where there is no room for that."""
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
