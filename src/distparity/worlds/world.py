"""The controller's end of one world: its ranks, their task, and its answer or failure."""

from __future__ import annotations

import enum
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distparity.core import processes
from distparity.core.wire import Frame, Link, ProtocolError, check
from distparity.worlds.device_pool import Held
from distparity.worlds.failure import Failure, Fate, Report, blame
from distparity.worlds.fleet import Fleet
from distparity.worlds.post_mortem import PostMortem, last_output
from distparity.worlds.rank_handle import Rank

__all__ = ["Answer", "Failure", "Spec", "Task", "World"]

#: Seconds for a world to become ready, in addition to the time that importing torch took.
START_LIMIT = 120.0
#: Seconds for the other ranks to raise too, after one rank has raised.
GRACE = 0.5
#: Seconds for ranks that did not answer to report where they are.
PATIENCE = 1.5
#: The same two if a rank has died, because a death must be known within a second.
HASTE = 0.2, 0.4
#: Seconds for a process to end by itself after a fatal error.
LAST_BREATH = 0.2
#: The most bytes of one rank's output on disk, and the seconds between two checks of its files.
MOST_OUTPUT = 64 << 20
LOOK_AT_FILES = 0.15

#: The frames that a rank may send, by operation.
SCHEMAS: dict[str, dict[str, tuple[type, ...]]] = {
    "store": {"port": (int,)},
    "ready": {},
    "raised": {
        "id": (int,),
        "kind": (str,),
        "text": (str,),
        "traceback": (str,),
        "when": (int, float),
        "seen": (dict,),
        "origin": (str,),
    },
    "answer": {
        "id": (int,),
        "result": (dict,),
        "seconds": (int, float),
        "calls": (int,),
        "left": (list,),
        "findings": (list,),
    },
}


@dataclass(frozen=True)
class Spec:
    """The kind of a world: how many ranks on which kind of device, with a process group or without.

    With the device ``""``, ranks are bare processes: nothing is set up in them.
    """

    device: str
    size: int
    group: bool = True
    #: As for :func:`distparity.worlds.fleet.arrange`, or "" on one machine.
    placement: str = ""
    #: The number of each rank's node, if they are asked for.
    nodes: tuple[int, ...] = ()
    #: With them, the index of each rank's device, if that is asked for.
    devices: tuple[int, ...] = ()


@dataclass
class Task:
    """A named task for every rank of a world that fits ``spec``; ``limit`` is in seconds."""

    spec: Spec
    name: str
    args: dict[str, Any]
    blobs: list[bytes] = field(default_factory=list)
    limit: float = 60.0
    #: End the world after this task, even if it succeeded.
    last: bool = False
    #: Run it in a new world.
    fresh: bool = False
    #: Run it while nothing else runs, because it may have killed the fork server.
    alone: bool = False


@dataclass
class Answer:
    """The ranks' answers, in rank order; ``seconds`` is the time of the slowest rank.

    ``left`` says what the task left changed in a rank's process; the world then ends.
    """

    results: list[dict[str, Any]]
    blobs: list[list[bytes]]
    seconds: float
    left: str = ""
    #: What the ranks' devices reported, one line each.
    findings: tuple[str, ...] = ()
    #: The name of each rank's node and its device index there; empty on one machine.
    places: tuple[tuple[str, int], ...] = ()


#: The first so many bytes of a rank's stacks say whether they are those of a fatal error.
_FATAL_WITHIN = 1 << 16


class State(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    #: Something went wrong; stacks have been requested.
    DYING = "dying"
    DEAD = "dead"


class World:
    """A group of ranks that start, run one task after another, and end.

    Nothing here blocks: the scheduler calls :meth:`on_frame`, :meth:`on_exit` and :meth:`tick`, and
    reads :attr:`done`, which is an :class:`Answer` or a :class:`Failure` once the task has ended.
    A world that had a failure is never used again.
    """

    def __init__(
        self,
        number: int,
        spec: Spec,
        launcher: Fleet,
        timeout: float,
        extra: float = 0.0,
        held: Held | None = None,
    ) -> None:
        self.number = number
        self.spec = spec
        #: The devices of its ranks, for kinds with a limited number of devices.
        self.held = held or Held(tuple(range(spec.size)))
        self.launcher = launcher
        self.state = State.STARTING
        self.task: Task | None = None
        self.done: Answer | Failure | None = None
        self.made = self.used = time.monotonic()
        self._start_limit = START_LIMIT + extra
        self._set_deadline(time.monotonic() + self._start_limit)
        self._trouble: str | None = None
        self._tasks = 0
        self._port: int | None = None
        self._post_mortem: PostMortem | None = None
        self._looked_at_files = 0.0
        places = self.held.places
        nodes = [node for node, _ in places]
        names = launcher.names(nodes) or ("",) * spec.size
        #: The name of each rank's node and its device index there; empty on one machine.
        self.places = tuple(zip(names, self.held.indices, strict=True)) if launcher.several else ()
        specs = [
            {
                "rank": rank,
                "local_rank": nodes[:rank].count(nodes[rank]),
                "local_size": nodes.count(nodes[rank]),
                "node": nodes[rank],
                "index": self.held.indices[rank],
                "sharing": self.held.sharing,
                "world_size": spec.size,
                "device": spec.device,
                "group": spec.group,
                "timeout": timeout,
            }
            for rank in range(spec.size)
        ]
        files = launcher.fork(number, specs)
        self.ranks = [
            Rank(rank, str(spec["token"]), name, *mine)
            for rank, (spec, mine, name) in enumerate(zip(specs, files, names, strict=True))
        ]
        #: Those on this machine.
        self.here = [rank for rank, node in zip(self.ranks, nodes, strict=True) if node == 0]
        links = {node: launcher.link(number, node) for node in set(nodes)}
        for rank, node in zip(self.ranks, nodes, strict=True):
            rank.channel = links[node]
        #: The ranks that are not ready yet, or have not answered the task.
        self._awaited = set(range(spec.size))

    # -- what the scheduler does ---------------------------------------------------------------

    def assign(self, task: Task) -> None:
        """Assign a task to a world that is idle or still starting."""
        assert self.task is None
        self.task = task
        self.done = None
        if self.state is State.IDLE:
            self._hand_out()

    def retire(self) -> None:
        """Kill all ranks. Their channels stay open until the scheduler drops the world."""
        self._kill(self.ranks)
        self.state = State.DEAD
        self.launcher.forget(self.number)

    def orphan(self, how: str | None, what: str = "died with the fork server") -> None:
        """End this world because the fork server died with all ranks, or could not fork them all.

        ``how`` is the message of the task's failure, and ``what`` happened to each rank. If ``how``
        is None, the scheduler runs the task again elsewhere.
        """
        if how is not None:
            self._trouble = "crash"
            reports = [
                Report(
                    rank.number,
                    Fate.DIED,
                    what,
                    output=last_output(rank)[0],
                    pid=processes.local(rank.pid),
                    node=rank.node,
                )
                for rank in self.ranks
            ]
            self.done = Failure("crash", how, reports, time.monotonic() - self.used, self.places)
        self.task = None
        # Those on other nodes live.
        self._kill([rank for rank in self.ranks if processes.node_of(rank.pid)])
        self.state = State.DEAD
        self.launcher.forget(self.number)

    def _kill(self, ranks: list[Rank]) -> None:
        pids = [rank.pid for rank in ranks if rank.exit is None and rank.pid]
        if pids:
            self.launcher.kill(pids)

    @property
    def wake(self) -> float:
        """The latest time at which :meth:`tick` must be called, on the monotonic clock."""
        if self.state in (State.IDLE, State.DEAD):
            return float("inf")
        return min(self._deadline, self._looked_at_files + LOOK_AT_FILES)

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped one of its idle ranks, which would answer no task."""
        idle = self.state is State.IDLE
        return idle and self.launcher.any_stopped(rank.pid for rank in self.ranks)

    def put_off(self, seconds: float) -> None:
        """Extend the deadline by ``seconds``, during which the controller could not listen.

        A deadline that was set since then is extended by its age only.
        """
        self._deadline += min(seconds, time.monotonic() - self._since)

    def _set_deadline(self, when: float) -> None:
        self._deadline, self._since = when, time.monotonic()

    # -- events --------------------------------------------------------------------------------

    def on_forked(self, pids: list[int], node: int = 0) -> None:
        """Record the process ids of the ranks on a node."""
        mine = [
            rank
            for rank, (where, _) in zip(self.ranks, self.held.places, strict=True)
            if where == node
        ]
        # Fewer process ids than ranks if one could not be started.
        for rank, pid in zip(mine, pids, strict=False):
            rank.pid = pid

    def is_on(self, node: int) -> bool:
        """Whether one of its ranks is on this node."""
        return any(where == node for where, _ in self.held.places)

    def on_lost(self, node: int, why: str) -> None:
        """Record that a node is gone, and with it its ranks."""
        now = time.monotonic()
        for rank, (where, _) in zip(self.ranks, self.held.places, strict=True):
            if where == node and rank.exit is None:
                rank.lost = why
                rank.when = now
        if self.state is not State.DEAD:
            self._upset("crash")

    def on_connected(self, rank: Rank, channel: Link) -> None:
        """Record the connection of a rank on this machine."""
        rank.channel = channel
        if self._port is not None:
            channel.queue(self._join)

    def on_frame(self, rank: Rank, frame: Frame) -> None:
        """Handle a frame of a rank; raises :class:`ProtocolError` if it is invalid."""
        op = check(frame, SCHEMAS)
        if self.state in (State.DEAD, State.DYING):
            # Too late. A stopped rank that we let continue for its stack may even answer.
            return
        if op == "store":
            self._port = frame["port"]
            self._send_all(self._join)
        elif op == "ready":
            rank.ready = True
            if self.state is State.STARTING and self._was_last(rank):
                self.state = State.IDLE
                if self.task is not None:
                    self._hand_out()
        elif frame["id"] == self._tasks and not rank.settled:
            self._on_end_of_task(rank, frame)

    def on_rubbish(self, rank: Rank, error: ProtocolError) -> None:
        """Treat invalid bytes from a rank as an exception of that rank."""
        rank.error = Frame(
            kind="ProtocolError",
            text=str(error),
            traceback="",
            when=time.monotonic(),
            seen={},
            origin="other",
        )
        self._upset("crash")

    def on_exit(self, pid: int, status: int, *, memory: bool = False) -> bool:
        """Record that a process ended; returns False if it is not a process of this world."""
        for rank in self.ranks:
            if rank.pid == pid:
                rank.exit = status
                rank.memory = memory and status == signal.SIGKILL
                if rank.error is None:
                    rank.when = time.monotonic()
                if self.state is not State.DEAD:
                    self._upset("crash")
                return True
        return False

    def tick(self) -> None:
        """Act on deadlines: a time limit has passed, or stacks should have arrived."""
        if self.state is State.DEAD:
            return
        now = time.monotonic()
        if self.state is not State.IDLE and now >= self._looked_at_files + LOOK_AT_FILES:
            self._looked_at_files = now
            self._bound_output()
            self._help_the_dying(now)
        if self.state is State.IDLE or now < self._deadline:
            return
        if self._post_mortem is None:
            if self._trouble is None:
                self._upset("timeout")
            self._help_the_dying(now)
            self.state = State.DYING
            dead = any(rank.fate is Fate.DIED for rank in self.ranks)
            patience = HASTE[1] if dead else PATIENCE
            self._post_mortem = PostMortem(
                self.ranks, self.launcher, patience, began=self._tasks > 0
            )
        again = self._post_mortem.step()
        if again is None:
            self._bury(self._post_mortem.reports)
        else:
            self._set_deadline(again)

    def _on_end_of_task(self, rank: Rank, frame: Frame) -> None:
        if frame["op"] == "raised":
            rank.error = frame
            rank.when = frame["when"]
            self._upset("raised")
            return
        rank.answer = frame
        rank.when = time.monotonic()
        if self._was_last(rank):
            self._finish()
        elif self._trouble is not None:
            self._upset(self._trouble)

    # -- inside --------------------------------------------------------------------------------

    def _send_all(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Send a frame to every rank that is connected: one to each rank here, one to each other node."""
        for link in dict.fromkeys(rank.channel for rank in self.ranks):
            if link is not None:
                link.queue(message, blobs)

    @property
    def _join(self) -> dict[str, Any]:
        """What tells a rank the store's port."""
        return {"op": "join", "port": self._port}

    def _was_last(self, rank: Rank) -> bool:
        """Whether no other rank is awaited any more."""
        self._awaited.discard(rank.number)
        return not self._awaited

    def _hand_out(self) -> None:
        assert self.task is not None
        self._tasks += 1
        self.state = State.BUSY
        self.used = time.monotonic()
        self._set_deadline(self.used + self.task.limit)
        for rank in self.ranks:
            rank.answer = rank.error = None
        self._awaited.update(range(self.spec.size))
        task = {"op": "task", "id": self._tasks, "task": self.task.name, "args": self.task.args}
        self._send_all(task, self.task.blobs)

    def _finish(self) -> None:
        answers = [rank.answer for rank in self.ranks if rank.answer is not None]
        assert self.task is not None
        left = {
            f"rank {rank.number}: {', '.join(map(str, rank.answer['left']))}"
            for rank in self.ranks
            if rank.answer is not None and rank.answer["left"]
        }
        self.done = Answer(
            [answer["result"] for answer in answers],
            [answer.blobs for answer in answers],
            max(answer["seconds"] for answer in answers),
            "; ".join(sorted(left)),
            tuple(str(line) for answer in answers for line in answer["findings"]),
            self.places,
        )
        last = self.task.last or bool(left)
        self.task = None
        self.state = State.IDLE
        if last:
            self.retire()

    def _upset(self, trouble: str) -> None:
        """Something went wrong: give the other ranks a moment to fail by themselves."""
        now = time.monotonic()
        if self.state is State.DYING or all(rank.settled for rank in self.ranks):
            deadline = 0.0
        else:
            deadline = now + (HASTE[0] if trouble == "crash" else GRACE)
        if self._trouble is not None:
            if deadline < self._deadline:
                self._set_deadline(deadline)
        elif self.task is None and self.state in (State.IDLE, State.STARTING):
            # It died between two tasks, or before the first: no task failed, but the world is lost.
            self.retire()
        else:
            self._trouble = trouble
            self._set_deadline(deadline)

    def _bound_output(self) -> None:
        """Keep a rank that writes endlessly from filling the disk."""
        for rank in self.ranks:
            if rank.output.size() > MOST_OUTPUT:
                rank.output.empty()

    def _help_the_dying(self, now: float) -> None:
        """Kill ranks that had a fatal error and have not ended.

        The handler that writes their stacks may itself wait for ever, for the allocator's lock or for
        a thread that handles no signal, and a death must be known at once.
        """
        for rank in self.ranks if self.state is not State.DYING else []:
            if not rank.settled and not rank.helped and _is_dying(rank):
                if rank.dying is None:
                    rank.dying = rank.when = now
                if now - rank.dying >= LAST_BREATH:
                    rank.helped = True
                    self.launcher.kill([rank.pid])

    def _bury(self, reports: list[Report]) -> None:
        assert self._trouble is not None
        self.done = self._failure(reports)
        self.task = None
        self.retire()

    def _failure(self, reports: list[Report]) -> Failure:
        if self._tasks == 0 and self._trouble == "timeout":
            missing = ", ".join(str(r.rank) for r in reports if r.fate is Fate.SILENT)
            message = (
                f"the world did not start within {self._start_limit:g} s; missing: rank {missing}"
            )
            return Failure("timeout", message, reports, self._start_limit, self.places)
        assert self.task is not None
        limit = self.task.limit if self._trouble == "timeout" else None
        kind, message = blame(reports, limit=limit)
        return Failure(kind, message, reports, time.monotonic() - self.used, self.places)


def _is_dying(rank: Rank) -> bool:
    """True once faulthandler has reported a fatal error; for our own signal it writes only stacks."""
    return b"Fatal Python error" in rank.stacks.read(_FATAL_WITHIN)
