"""The controller's end of one rank: its process, its channel, and its answer to a task."""

from __future__ import annotations

from distparity.core.wire import Frame, Link
from distparity.worlds.failure import Fate
from distparity.worlds.output import OutputFile

__all__ = ["Rank"]


class Rank:
    """What the controller knows about one rank.

    The files: ``output`` has stdout and stderr, ``stacks`` the Python stacks, and ``where`` one line
    of JSON from the stack reporter.
    """

    def __init__(
        self,
        number: int,
        token: str,
        node: str,
        output: OutputFile,
        stacks: OutputFile,
        where: OutputFile,
    ) -> None:
        self.number = number
        self.token = token
        self.output = output
        self.stacks = stacks
        self.where = where
        #: The name of its machine; empty if all ranks of the run are on this machine.
        self.node = node
        #: Its process (:func:`distparity.core.processes.on_node`).
        self.pid = 0
        self.channel: Link | None = None
        #: The wait status of its process, once it has ended.
        self.exit: int | None = None
        #: It was killed, and the kernel ran out of memory and killed processes while it lived.
        self.memory = False
        #: Why nothing is known of it any more: its machine was lost.
        self.lost = ""
        #: When a fatal error was first seen, on the monotonic clock, and whether we killed it because
        #: it did not end.
        self.dying: float | None = None
        self.helped = False
        self.ready = False
        self.answer: Frame | None = None
        self.error: Frame | None = None
        #: When its answer, error or end was known, on the monotonic clock.
        self.when = 0.0

    @property
    def settled(self) -> bool:
        """True if nothing more can come from it for this task."""
        ended = self.exit is not None or bool(self.lost)
        return self.answer is not None or self.error is not None or ended

    @property
    def fate(self) -> Fate:
        if self.error is not None:
            return Fate.RAISED
        if self.exit is not None or self.dying is not None or self.lost:
            return Fate.DIED
        return Fate.SILENT if self.answer is None else Fate.ANSWERED
