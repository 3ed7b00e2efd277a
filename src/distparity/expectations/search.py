"""Search with a time limit: some patterns take practically for ever on some texts."""

from __future__ import annotations

import re
import signal
import threading
from types import FrameType

__all__ = ["TooSlow", "search"]

#: Seconds of this process's CPU time; a sane search takes a small fraction of that.
LIMIT = 2.0


class TooSlow(Exception):
    """The search for a pattern took too long."""


def search(pattern: re.Pattern[str], text: str) -> bool:
    """Whether ``pattern`` is found in ``text``; raises :class:`TooSlow` after :data:`LIMIT`.

    Outside the main thread there is no limit, because only the main thread can be interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        return pattern.search(text) is not None
    before = signal.signal(signal.SIGVTALRM, _interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
    try:
        return pattern.search(text) is not None
    except TooSlow:
        raise TooSlow(f"{pattern.pattern!r} takes more than {LIMIT:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise TooSlow
