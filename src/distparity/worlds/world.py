"""The controller's end of one world: its ranks, the task they have, what became of it."""

from __future__ import annotations

import enum
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from distparity.worlds import processes
from distparity.worlds.launcher import Launcher
from distparity.worlds.rank import tail
from distparity.worlds.wire import Channel, Frame, ProtocolError

__all__ = ["Answer", "Failure", "Report", "Spec", "Task", "World"]

#: Seconds that a world has to become ready, beyond what importing torch took.
START_LIMIT = 120.0
#: After one rank has raised or died, what the others have to raise by themselves.
GRACE = 0.4
#: What faulthandler has to write the stacks of the ranks that did not answer.
AUTOPSY = 0.25


@dataclass(frozen=True)
class Spec:
    """What a world is: so many ranks on a kind of device, with a process group or without.

    No device, ``""``, is a bare process: nothing is set up in it.
    """

    device: str
    size: int
    group: bool = True


@dataclass
class Task:
    """A named task for every rank of a world that fits ``spec``; ``limit`` in seconds."""

    spec: Spec
    name: str
    args: dict[str, Any]
    blobs: list[bytes] = field(default_factory=list)
    limit: float = 60.0
    #: Replace the world after this task even when it went well.
    last: bool = False


@dataclass
class Report:
    """What became of one rank."""

    rank: int
    #: "answered", "raised", "exited with code 3", "killed by SIGKILL", "no answer" ...
    what: str
    text: str = ""
    stack: str = ""
    output: str = ""
    #: When it was known, in seconds of the monotonic clock.
    when: float = 0.0
    pid: int = 0

    def __str__(self) -> str:
        parts = [f"rank {self.rank} (pid {self.pid}): {self.what}"]
        parts += [f"  {line}" for line in self.text.splitlines()]
        for title, text in (("stacks", self.stack), ("output", self.output)):
            if text.strip():
                parts.append(f"  -- {title} of rank {self.rank}")
                parts += [f"  {line}" for line in text.strip().splitlines()]
        return "\n".join(parts)


@dataclass
class Answer:
    """What the ranks answered, in rank order; ``seconds`` is the slowest rank's."""

    results: list[dict[str, Any]]
    blobs: list[list[bytes]]
    seconds: float


@dataclass
class Failure:
    """A task that not all ranks answered: ``kind`` is "raised", "crash" or "timeout"."""

    kind: str
    message: str
    ranks: list[Report]

    @property
    def detail(self) -> str:
        return "\n".join([self.message, "", *map(str, self.ranks)])


class State(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    #: Something went wrong; stacks have been asked for.
    DYING = "dying"
    DEAD = "dead"


class Rank:
    def __init__(self, number: int, token: str, output: str) -> None:
        self.number = number
        self.token = token
        self.output = output
        self.pid = 0
        self.channel: Channel | None = None
        self.exit: int | None = None
        self.ready = False
        self.answer: Frame | None = None
        self.error: Frame | None = None
        self.when = 0.0
        self.stopped = ""


class World:
    """Ranks that start, take one task after another, and end.

    Nothing here waits: the scheduler calls :meth:`on_frame`, :meth:`on_exit` and :meth:`tick`, and
    reads :attr:`done`, which is an :class:`Answer` or a :class:`Failure` once the task has ended.
    A world that had a failure is never used again.
    """

    def __init__(
        self, number: int, spec: Spec, launcher: Launcher, timeout: float, extra: float = 0.0
    ) -> None:
        self.number = number
        self.spec = spec
        self.launcher = launcher
        self.state = State.STARTING
        self.task: Task | None = None
        self.done: Answer | Failure | None = None
        self.used = time.monotonic()
        self._start_limit = START_LIMIT + extra
        self._deadline = time.monotonic() + self._start_limit
        self._trouble: str | None = None
        self._tasks = 0
        self._port: int | None = None
        specs = [
            {
                "rank": rank,
                "local_rank": rank,
                "world_size": spec.size,
                "device": spec.device,
                "group": spec.group,
                "timeout": timeout,
            }
            for rank in range(spec.size)
        ]
        launcher.fork(number, specs)
        self.ranks = [Rank(s["rank"], s["token"], s["output"]) for s in specs]  # type: ignore[arg-type]

    # -- what the scheduler does ---------------------------------------------------------------

    def assign(self, task: Task) -> None:
        """Give a task to an idle world, or to one that is still starting."""
        assert self.task is None
        self.task = task
        self.done = None
        if self.state is State.IDLE:
            self._hand_out()

    def retire(self) -> None:
        """Kill all ranks. Their channels stay open until the scheduler drops the world."""
        pids = [rank.pid for rank in self.ranks if rank.exit is None and rank.pid]
        if pids:
            self.launcher.kill(pids)
        self.state = State.DEAD
        self.launcher.forget(self.number)

    @property
    def wake(self) -> float:
        """When :meth:`tick` wants to be called at the latest, on the monotonic clock."""
        return self._deadline if self.state is not State.IDLE else float("inf")

    # -- events --------------------------------------------------------------------------------

    def on_forked(self, pids: list[int]) -> None:
        for rank, pid in zip(self.ranks, pids, strict=True):
            rank.pid = pid

    def on_connected(self, rank: Rank, channel: Channel) -> None:
        rank.channel = channel
        self._send_port(rank)

    def on_frame(self, rank: Rank, frame: Frame) -> None:
        op = frame["op"]
        if self.state is State.DEAD:
            return
        if op == "store":
            self._port = frame["port"]
            for other in self.ranks:
                self._send_port(other)
        elif op == "ready":
            rank.ready = True
            if all(other.ready for other in self.ranks) and self.state is State.STARTING:
                self.state = State.IDLE
                if self.task is not None:
                    self._hand_out()
        elif op == "raised":
            rank.error = frame
            rank.when = frame["when"]
            self._upset("raised")
        elif op == "answer" and frame["id"] == self._tasks:
            rank.answer = frame
            rank.when = time.monotonic()
            if all(other.answer is not None for other in self.ranks):
                self._finish()

    def on_rubbish(self, rank: Rank, error: ProtocolError) -> None:
        rank.error = Frame(
            kind="ProtocolError", text=str(error), traceback="", when=time.monotonic()
        )
        self._upset("crash")

    def on_exit(self, pid: int, status: int) -> bool:
        """Take note that a process ended; False when it is none of this world's."""
        for rank in self.ranks:
            if rank.pid == pid:
                rank.exit = status
                if rank.error is None:
                    rank.when = time.monotonic()
                if self.state is not State.DEAD:
                    self._upset("crash")
                return True
        return False

    def tick(self) -> None:
        """Act on the clock: a limit that passed, stacks that should be there by now."""
        if time.monotonic() < self.wake:
            return
        if self.state is State.DYING:
            self._bury()
        elif self._trouble is None:
            self._upset("timeout")
            self._autopsy()
        else:
            self._autopsy()

    # -- inside --------------------------------------------------------------------------------

    def _send(self, rank: Rank, message: dict[str, Any], blobs: list[bytes] | None = None) -> None:
        if rank.channel is not None:
            rank.channel.queue(message, blobs or [])

    def _send_port(self, rank: Rank) -> None:
        """Tell a rank where the store listens: once both that and the rank are known."""
        if self._port is not None:
            self._send(rank, {"op": "join", "port": self._port})

    def _hand_out(self) -> None:
        assert self.task is not None
        self._tasks += 1
        self.state = State.BUSY
        self.used = time.monotonic()
        self._deadline = self.used + self.task.limit
        for rank in self.ranks:
            rank.answer = rank.error = None
            message = {
                "op": "task",
                "id": self._tasks,
                "task": self.task.name,
                "args": self.task.args,
            }
            self._send(rank, message, self.task.blobs)

    def _finish(self) -> None:
        answers = [rank.answer for rank in self.ranks if rank.answer is not None]
        assert self.task is not None
        self.done = Answer(
            [answer["result"] for answer in answers],
            [answer.blobs for answer in answers],
            max(answer["seconds"] for answer in answers),
        )
        last = self.task.last
        self.task = None
        self.state = State.IDLE
        if last:
            self.retire()

    def _upset(self, trouble: str) -> None:
        """Something went wrong: give the other ranks a moment to fail by themselves."""
        if self.state is State.DYING or self._trouble is not None:
            if all(self._settled(rank) for rank in self.ranks) and self.state is not State.DYING:
                self._deadline = 0.0
            return
        if self.task is None and self.state is State.IDLE:
            # Died between two tasks: nobody's failure, but no world any more.
            self.retire()
            return
        self._trouble = trouble
        settled = all(self._settled(rank) for rank in self.ranks)
        self._deadline = 0.0 if settled else time.monotonic() + GRACE

    @staticmethod
    def _settled(rank: Rank) -> bool:
        return rank.answer is not None or rank.error is not None or rank.exit is not None

    def _autopsy(self) -> None:
        """Ask the ranks that did not answer where they are."""
        silent = [rank for rank in self.ranks if not self._settled(rank) and rank.pid]
        for rank in silent:
            rank.stopped = processes.state(rank.pid)
        self.state = State.DYING
        self._deadline = 0.0
        if silent:
            pids = [rank.pid for rank in silent]
            self.launcher.signal(pids, signal.SIGUSR1)
            # A stopped process handles no signal until it goes on.
            self.launcher.signal(pids, signal.SIGCONT)
            self._deadline = time.monotonic() + AUTOPSY

    def _bury(self) -> None:
        assert self._trouble is not None
        reports = [self._report(rank) for rank in self.ranks]
        died = any(rank.exit is not None and rank.error is None for rank in self.ranks)
        self.done = Failure("crash" if died else self._trouble, self._blame(reports), reports)
        self.task = None
        self.retire()

    def _report(self, rank: Rank) -> Report:
        found = Report(rank.number, "answered", when=rank.when, pid=rank.pid)
        if rank.error is not None:
            found.what = f"raised {rank.error['kind']}: {rank.error['text']}".strip()
            found.text = rank.error["traceback"]
        elif rank.exit is not None:
            found.what = processes.describe_exit(rank.exit)
        elif rank.answer is None:
            found.what = f"no answer (its process is {rank.stopped or 'not started'})"
        if rank.answer is None:
            found.stack = tail(f"{rank.output}.stacks")
            found.output = tail(rank.output)
        return found

    def _blame(self, reports: list[Report]) -> str:
        """One line: who did what first."""
        if self._trouble == "timeout":
            silent = [report for report in reports if report.what.startswith("no answer")]
            names = ", ".join(str(report.rank) for report in silent)
            if self._tasks == 0:
                limit = self._start_limit
                return f"the world did not start within {limit:g} s; missing: rank {names}"
            limit = self.task.limit if self.task is not None else self._start_limit
            stopped = [
                f"rank {r.rank} is stopped" for r in silent if "(its process is stopped" in r.what
            ]
            return "; ".join([f"rank {names}: no answer within {limit:g} s", *stopped])
        # A rank whose peer is gone says so ("connection closed by peer"): that is an echo.
        culprits = [
            r for r in reports if r.what != "answered" and not r.what.startswith("no answer")
        ]
        loud = [report for report in culprits if not _is_echo(report)] or culprits
        first = min(loud, key=lambda report: report.when)
        return f"rank {first.rank} {first.what.splitlines()[0]}"


def _is_echo(report: Report) -> bool:
    text = report.what.lower()
    return report.what.startswith("raised") and any(
        sign in text
        for sign in ("closed by peer", "connection reset", "connection refused", "gloo/transport")
    )
