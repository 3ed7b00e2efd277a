"""Collect what the ranks of a failed task can still tell, and report on every rank.

Ranks that have not answered are asked three times, by signal:

1. faulthandler writes the Python stacks of all threads from inside a signal handler. This works in
   an endless loop, and in native code that holds the GIL.
2. The stack reporter's thread writes which collective the rank is in. It must not run earlier,
   because faulthandler may crash when it reads the stacks of running threads.
3. SIGABRT ends the process: torch's own handler writes the native stacks of all threads.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from distparity.core import processes
from distparity.core.collective_call import STOPPED, Whereabouts, describe, locate
from distparity.core.redact import LEFT_OUT
from distparity.worlds import native_stacks
from distparity.worlds.failure import (
    Fate,
    Report,
    fatal_error,
    last_words,
    without_stack_reporter,
    written_in_dying,
)
from distparity.worlds.fleet import Fleet
from distparity.worlds.rank_handle import Rank

__all__ = ["PostMortem", "last_output"]

#: Seconds between two looks for an answer.
GLANCE = 0.02
#: Seconds for a rank to write its native stacks.
NATIVE = 0.3
#: Seconds that an answer may take longer while the rank waits for a CPU; as many times that as threads
#: want each CPU, and at most so many.
BUSY, BUSY_AT_MOST = 5.0, 60.0
#: Bytes of the stacks that a rank writes as it dies.
_STACKS = 1 << 16
#: Bytes of a rank's output that are read, and that are reported.
_READ = 1 << 20
_OUTPUT = 8192
#: Signals that end a process, by faulthandler's names.
_SIGNALS = {
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Floating point exception": signal.SIGFPE,
    "Floating-point exception": signal.SIGFPE,
    "Illegal instruction": signal.SIGILL,
    "Segmentation fault": signal.SIGSEGV,
}
#: The kernel's states of a process that has ended.
_ENDED = ("zombie", "dead", "gone")
#: The most bytes of a stack reporter's line.
_WHERE = 1 << 16


@dataclass
class PostMortem:
    """Asks the ranks, and then has :attr:`reports`; :meth:`step` asks, waits and listens.

    ``patience`` is the time for a stack reporter's answer, in seconds. ``began`` says whether the
    ranks ever had a task.
    """

    ranks: Sequence[Rank]
    launcher: Fleet
    patience: float
    began: bool
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        # From now on, our own signals may end a rank.
        self._fates = [rank.fate for rank in self.ranks]
        self._asked = [
            rank for rank in self.ranks if not rank.settled and rank.dying is None and rank.pid
        ]
        self._states = {rank.number: self.launcher.state(rank.pid) for rank in self._asked}
        self._stopped = [rank for rank in self._asked if "stop" in self._states[rank.number]]
        self._going = [rank for rank in self._asked if rank not in self._stopped]
        self._gone = [rank for rank in self._asked if self._states[rank.number] in _ENDED]
        #: Bytes of stacks that were there before: written for a signal that was not ours.
        self._old = {rank.number: _size(rank) for rank in self._asked}
        self._sizes: list[int] = []
        self._crowd = 1.0
        self._running = True
        self._steps = self._ask()

    def step(self) -> float | None:
        """Go on as far as possible; returns when to call again, None if there is nothing left to do."""
        return next(self._steps, None)

    def _ask(self) -> Iterator[float]:
        """Ask the three questions; yields the times at which to look for the answers."""
        began = time.monotonic()
        # Sent to the main thread, because a stopped process then writes where it was stopped.
        self._send(self._asked, signal.SIGUSR1, main=True)
        yield from self._wait(
            lambda: self._have_stacks(self._going),
            began + self.patience / 3,
            lambda: self._are_held_up([rank for rank in self._going if not self._wrote(rank)]),
        )
        asked = max(time.monotonic(), began + self.patience / 3)
        self._send(self._going, processes.STACK_REPORT)
        yield from self._wait(
            lambda: all(map(_testified, self._going)),
            asked + self.patience * (5 / 12 if self._stopped else 2 / 3),
            # The main thread may hold the GIL for good.
            lambda: self._are_held_up(
                [rank for rank in self._going if not _testified(rank)], main=False
            ),
        )
        continued = time.monotonic()
        # A stopped process handles signals only when it continues. It continues only now, because
        # the other ranks may then continue with it.
        self._send(self._stopped, signal.SIGCONT)
        yield from self._wait(
            lambda: self._have_stacks(self._stopped),
            continued + self.patience / 4,
            lambda: self._are_held_up([rank for rank in self._stopped if not self._wrote(rank)]),
        )
        # A process that has ended by now did so by itself; the fork server will report how.
        yield from self._wait(
            lambda: all(rank.exit is not None for rank in self._gone),
            time.monotonic() + BUSY,
        )
        self.reports = list(map(self._report, self.ranks, self._fates))
        # All are stopped first. Otherwise one may die before the next one has its signal, which then no
        # longer waits for it, and writes other native stacks.
        self._send(self._asked, signal.SIGSTOP)
        self._send(self._asked, signal.SIGABRT, main=True)
        self._send(self._asked, signal.SIGCONT)
        asked = time.monotonic()
        yield from self._wait(self._have_ended, asked + NATIVE)
        yield from self._wait(self._come_to_rest, asked + NATIVE, lambda: True)
        for rank, report in zip(self.ranks, self.reports, strict=True):
            self._add_native(rank, report)

    def _wait(
        self, come: Callable[[], bool], until: float, held_up: Callable[[], bool] = bool
    ) -> Iterator[float]:
        """Wait until an answer has come or ``until``; longer while the ranks asked are held up."""
        while not come():
            now = time.monotonic()
            if now >= until and not (now < until + self._grace() and held_up()):
                return
            yield now + GLANCE

    def _grace(self) -> float:
        # Ranks of many worlds may have reached their time limits at once.
        self._crowd = max(self._crowd, processes.crowd())
        return min(BUSY * self._crowd, BUSY_AT_MOST)

    def _are_held_up(self, silent: list[Rank], *, main: bool = True) -> bool:
        """Whether one of these ranks may not yet have had a CPU to hear us and to answer.

        Without ``main``, a main thread that wants to run does not count.
        """
        living = [rank.pid for rank in silent if rank.exit is None]
        wanting = (self.launcher.wants_to_run(pid, main=main) for pid in living)
        return bool(living) and (self.launcher.is_busy() or any(wanting))

    def _wrote(self, rank: Rank) -> bool:
        return _size(rank) > self._old[rank.number]

    def _have_stacks(self, ranks: list[Rank]) -> bool:
        """True once these ranks have written their stacks completely."""
        sizes = [_size(rank) - self._old[rank.number] for rank in ranks]
        before, self._sizes = self._sizes, sizes
        ended = [rank.exit is not None for rank in ranks]
        return before == self._sizes and all(map(max, self._sizes, ended))

    def _have_ended(self) -> bool:
        return all(rank.exit is not None for rank in self._asked)

    def _come_to_rest(self) -> bool:
        """True once the ranks have ended, or nobody who has to do with it was running twice in a row."""
        # The fork server may not have sent the signal yet.
        running = self.launcher.is_busy() or any(
            self.launcher.wants_to_run(rank.pid) for rank in self._asked if rank.exit is None
        )
        before, self._running = self._running, running
        return self._have_ended() or not (before or running)

    def _send(self, ranks: list[Rank], number: int, *, main: bool = False) -> None:
        pids = [rank.pid for rank in ranks if rank.exit is None]
        if pids:
            self.launcher.signal(pids, number, main=main)

    def _report(self, rank: Rank, fate: Fate) -> Report:
        if rank in self._gone and rank.exit is not None:
            fate = Fate.DIED
        found = Report(
            rank.number, fate, when=rank.when, pid=processes.local(rank.pid), node=rank.node
        )
        if fate is Fate.ANSWERED and rank.answer is not None:
            found.what = f"answered after {rank.answer['calls']} collectives"
            return found
        found.stack = self._stacks(rank)
        found.output = last_output(rank)[0]
        if fate is Fate.RAISED and rank.error is not None:
            found.what = f"raised {rank.error['kind']}: {rank.error['text']}".strip()
            found.text = rank.error["traceback"]
            found.where = describe(rank.error["seen"])
            found.origin = rank.error["origin"]
        elif fate is Fate.DIED:
            found.what = _end(rank, found)
            found.where = locate(found.stack)
        else:
            found.where = self._where(rank, found.stack)
        return found

    def _stacks(self, rank: Rank) -> str:
        """The Python stacks that a rank has written since it was asked, without our own thread's.

        A rank that nobody asks has ended, or ends: what it wrote before that was for another signal.
        """
        if rank in self._asked:
            found = rank.stacks.tail(since=self._old[rank.number])
        else:
            found = written_in_dying(rank.stacks.tail(_STACKS))
        return without_stack_reporter(found)

    def _where(self, rank: Rank, stack: str) -> Whereabouts:
        """Where a rank is that has not answered."""
        state = self._states.get(rank.number, "not started")
        found = locate(stack)
        at = "" if found is None else found.at
        if "stop" in state:
            # It is not waiting for others, and it has moved on when its stack reporter looks.
            return Whereabouts(at=at, state=STOPPED)
        try:
            seen = json.loads(rank.where.read(_WHERE))
        except (ValueError, RecursionError):
            if found is not None and found.call is not None:
                return found
            known = self.began and at
            why = "in native code that holds the GIL" if known else "no response"
            return Whereabouts(at=at, state=f"{why}, process {state}")
        return describe(seen if isinstance(seen, dict) else {})

    def _add_native(self, rank: Rank, report: Report) -> None:
        if report.fate not in (Fate.SILENT, Fate.DIED):
            return
        stacks = native_stacks.read(last_output(rank)[1])
        report.native = native_stacks.brief(stacks)
        if not report.stack:
            # It wrote them too late to say where it waited, but in time to be read.
            report.stack = self._stacks(rank)
        if report.fate is Fate.SILENT and report.where is not None:
            main = stacks.get(report.pid, [])
            report.where = report.where.named(
                native_stacks.collective(stacks),
                waits=native_stacks.waits(main),
                message=native_stacks.message(main),
            )


def _size(rank: Rank) -> int:
    """The size of a rank's Python stacks, in bytes."""
    return rank.stacks.size()


def _testified(rank: Rank) -> bool:
    return rank.settled or rank.where.read(_WHERE).endswith(b"\n")


def _end(rank: Rank, found: Report) -> str:
    """How a rank's process ended, in words."""
    if rank.lost:
        return f"is gone: {rank.node} {rank.lost}"
    if rank.exit is None or rank.helped:
        # It had a fatal signal, did not end, and was killed: the first signal is the reason.
        died = fatal_error(found.stack)
        if died not in _SIGNALS:
            return f"died of a fatal error: {died}"
        # The same words as for a process that ends before anybody sees that it is dying.
        words = [processes.describe_exit(_SIGNALS[died]), last_words(found.output)]
        return ": ".join(filter(None, words))
    words = [processes.describe_exit(rank.exit), last_words(found.output)]
    memory = " (the kernel ran out of memory and killed processes)" if rank.memory else ""
    return ": ".join(filter(None, words)) + memory


def last_output(rank: Rank) -> tuple[str, str]:
    """The end of a rank's output, and the native stacks that follow it."""
    text, stacks = native_stacks.split(rank.output.tail(_READ))
    cut = len(text) - _OUTPUT
    return (LEFT_OUT + text[cut:] if cut > 0 else text), stacks
