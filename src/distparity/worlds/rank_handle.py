"""The controller's end of one rank: its process, its channel, and what it said of its task."""

from __future__ import annotations

from distparity.core.wire import Channel, Frame
from distparity.worlds.failure import Fate
from distparity.worlds.output import OutputFile

__all__ = ["Rank"]


class Rank:
    """What the controller knows of one rank.

    ``output`` is what it writes, ``stacks`` are Python's, and ``where`` is what its stack reporter
    saw: a line of JSON.
    """

    def __init__(
        self,
        number: int,
        token: str,
        output: OutputFile,
        stacks: OutputFile,
        where: OutputFile,
    ) -> None:
        self.number = number
        self.token = token
        self.output = output
        self.stacks = stacks
        self.where = where
        self.pid = 0
        self.channel: Channel | None = None
        #: Its wait status, once it has ended.
        self.exit: int | None = None
        #: The kernel killed processes for want of memory while this one lived, and it was killed.
        self.memory = False
        #: When it was first seen to have had a fatal error, on the monotonic clock, and whether it
        #: was helped to end.
        self.dying: float | None = None
        self.helped = False
        self.ready = False
        self.answer: Frame | None = None
        self.error: Frame | None = None
        #: When that was known, on the monotonic clock.
        self.when = 0.0

    @property
    def settled(self) -> bool:
        """True when no more is to come from it for this task."""
        return self.answer is not None or self.error is not None or self.exit is not None

    @property
    def fate(self) -> Fate:
        if self.error is not None:
            return Fate.RAISED
        if self.exit is not None or self.dying is not None:
            return Fate.DIED
        return Fate.SILENT if self.answer is None else Fate.ANSWERED
