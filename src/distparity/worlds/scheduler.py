"""Many worlds, many tasks, one thread.

A *job* is a generator that yields :class:`Task` objects, is sent what became of each, and
returns its result. Jobs run side by side, as many as there is room for; whoever wants a result
calls :meth:`Scheduler.result`, which turns the wheel until it is there.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from distparity.core import processes
from distparity.core.wire import Channel, Frame, ProtocolError
from distparity.worlds.device_pool import Held, Pool
from distparity.worlds.launcher import Launcher, StartError, first_frame
from distparity.worlds.rank_handle import Rank
from distparity.worlds.world import Answer, Spec, State, Task, World

__all__ = ["Job", "Scheduler", "Shared"]

S = TypeVar("S")
T = TypeVar("T")


class Shared:
    """Yielded in place of a task: the same job for everybody who asks by the same key."""

    def __init__(self, key: Hashable, make: Callable[[], Job[Any]]) -> None:
        self.key = key
        self.make = make


Job = Generator["Task | Shared", Any, T]


#: How many ranks on the CPU may be busy at once: ranks wait for one another, and what a core does
#: meanwhile is another world's case. Measured (benchmarks/suite.py) on two cores, where 8 ranks at
#: once take a fifth less time than 2 and more than that takes none; on many cores less is left over.
RANKS_PER_CORE = 4
MOST_BESIDE_CORES = 16

#: Connections that have not said yet which rank they are: how many, how long, in seconds, and how
#: much they may say, in bytes.
STRANGERS = 32
PATIENCE = 20.0
HELLO = 4096
#: How often one looks whether the fork server is stopped, and how long it may owe an answer to a
#: fork, in seconds: it may be importing what ranks need, on a machine that is busy.
LOOK_AT_FORK_SERVER = 1.0
FORK_LIMIT = 60.0
#: So many seconds without a turn are counted against nobody: limits are put off by as much.
LATE = 0.5


class _Handle:
    """A job under way. ``error`` is what it raised, where it ended so."""

    def __init__(self, job: Job[Any]) -> None:
        self.job = job
        self.finished = False
        self.value: Any = None
        self.error: Exception | None = None
        self.waiting: list[_Handle] = []


class Scheduler:
    """Owns all worlds. ``room`` is how many ranks may be busy at once.

    Without it, ranks on the CPU are several to a core, and ranks on other devices as many as
    :attr:`pools` has devices.

    An exception of our own in a turn costs at most the world at which it was raised, never the run:
    every step for a world goes through :meth:`_sparing`, and its task is done again, alone. If that
    fails as well, the task ends with the exception. :attr:`faults` has every one of them.
    """

    def __init__(
        self, launcher: Launcher, *, room: int | None = None, timeout: float = 600.0
    ) -> None:
        self.launcher = launcher
        self.room = room
        cores = max(2, len(os.sched_getaffinity(0)))
        self.cpu_places = min(RANKS_PER_CORE * cores, cores + MOST_BESIDE_CORES)
        #: By kind of device, where there are so many and no more.
        self.pools: dict[str, Pool] = {}
        self.timeout = timeout
        #: Seconds that places (cores, or a kind of device) were occupied by tasks, over all places.
        self._occupied: dict[str, float] = {}
        self._began: float | None = None
        #: By kind of device: what a world may take to start beyond what all are given.
        self.start_seconds: dict[str, float] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(launcher.channel, selectors.EVENT_READ, self._on_fork_server)
        self._selector.register(launcher.listener, selectors.EVENT_READ, self._on_stranger)
        self._worlds: list[World] = []
        self._numbers = 0
        self._tokens: dict[str, tuple[World, Rank]] = {}
        #: Tasks that wait for a world, each with the handle that wants its answer.
        self._queue: deque[tuple[Task, _Handle]] = deque()
        self._busy: dict[World, tuple[Task, _Handle]] = {}
        self._shared: dict[Hashable, _Handle] = {}
        #: Processes that were told to end, by id, and the devices that are theirs until then.
        self._ending: dict[int, tuple[str, Held]] = {}
        #: Connections that have not said who they are, oldest first, and until when they may.
        self._strangers: dict[Channel, float] = {}
        #: Exceptions of our own, each in a line.
        self.faults: list[str] = []
        #: Why there are no more ranks: the fork server died, and cannot be started again.
        self.ended: StartError | None = None
        #: When the fork server was asked for a world's ranks, until it has answered.
        self._forks: dict[int, float] = {}
        self._looked_at_fork_server = time.monotonic()
        self._listened = time.monotonic()

    # -- for users -----------------------------------------------------------------------------

    def start(self, job: Job[Any]) -> _Handle:
        """Begin a job; returns the handle that :meth:`result` takes."""
        handle = _Handle(job)
        self._advance(handle, None)
        return handle

    def result(self, handle: _Handle) -> Any:
        """Turn the wheel until the job has ended; returns what it returned, raises likewise."""
        while not handle.finished:
            self.turn()
        if handle.error is not None:
            raise handle.error
        return handle.value

    def run(self, job: Job[Any]) -> Any:
        return self.result(self.start(job))

    def side_by_side(
        self, todo: Iterable[S], job: Callable[[S], Job[T]]
    ) -> Iterator[tuple[S, T]]:
        """The result of a job for each of ``todo``, in order, as many at once as there is room."""
        waiting = iter(todo)
        handles: deque[tuple[S, _Handle]] = deque()
        while True:
            while self.idle and (following := next(waiting, None)) is not None:
                handles.append((following, self.start(job(following))))
            if not handles:
                return
            one, handle = handles[0]
            if handle.finished:
                handles.popleft()
                yield one, self.result(handle)
            else:
                self.turn()

    @property
    def idle(self) -> bool:
        """True when another job would find something to run on."""
        devices = sum(pool.count for pool in self.pools.values())
        places = self.room or self.cpu_places + devices
        return len(self._queue) == 0 and self._ranks_busy() < places

    def busy(self) -> float:
        """Which part of the time since the first task the places were occupied, in ranks' own time.

        The places are as many ranks as may be busy at once; where the largest world does not fit
        into what others leave, some are empty.
        """
        if self._began is None:
            return 0.0
        elapsed = time.monotonic() - self._began
        return max(
            (spent / (self._places(kind) * elapsed) for kind, spent in self._occupied.items()),
            default=0.0,
        )

    def _count(self, spec: Spec, seconds: float) -> None:
        kind = spec.device if spec.device in self.pools else ""
        ranks = min(spec.size, self._places(kind))
        self._occupied[kind] = self._occupied.get(kind, 0.0) + ranks * seconds

    def _places(self, kind: str) -> int:
        return self.room or (self.pools[kind].count if kind else self.cpu_places)

    def turn(self, patience: float = 1.0) -> None:
        """Hand out what can be handed out, then wait for one round of events."""
        self._dispatch()
        self._flush()
        now = time.monotonic()
        wake = min([now + patience, *(world.wake for world in self._worlds)])
        for key, _ in self._selector.select(max(0.0, wake - now)):
            key.data(key.fileobj)
        self._forgive_lateness(patience)
        for world in list(self._worlds):
            self._sparing(world, world.tick)
        for world in list(self._worlds):
            self._sparing(world, self._settle, world)
        self._look_at_fork_server()
        for channel, until in list(self._strangers.items()):
            if time.monotonic() > until:
                self._turn_away(channel)

    def close(self) -> None:
        for world in list(self._worlds):
            self._discard(world)
        for channel in list(self._strangers):
            self._turn_away(channel)
        self._selector.close()

    # -- our own exceptions --------------------------------------------------------------------

    def _sparing(self, world: World, step: Callable[..., object], *args: Any) -> None:
        """Do something for a world; an exception in it is that world's end, and no more."""
        try:
            step(*args)
        except Exception as error:
            self._note(error)
            busy = self._busy.pop(world, None)
            self._discard(world)
            if busy is not None:
                self._again(*busy, error)

    def _again(self, task: Task, handle: _Handle, error: Exception) -> None:
        """Have a task done again, alone, that an exception of ours has interrupted; once."""
        if task.alone:
            self._advance(handle, error)
        else:
            self._queue.appendleft((replace(task, alone=True), handle))

    def _discard(self, world: World) -> None:
        """Be rid of a world in which anything may be broken: its ranks are killed in any case."""
        for step in (world.retire, lambda: self._drop(world)):
            try:
                step()
            except Exception as error:
                self._note(error)
        world.state = State.DEAD
        with contextlib.suppress(Exception):
            self.launcher.kill([rank.pid for rank in world.ranks if rank.pid])

    def _note(self, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(where.filename)}:{where.lineno} in {where.name}"  # noqa: PTH119
        self.faults.append(f"{type(error).__name__}: {error} ({place})")

    def _forgive_lateness(self, patience: float) -> None:
        """Put off all limits by as long as this process had no turn: suspended, or without a core.

        What ranks have said meanwhile is read first, and a large answer comes in more than one turn.
        """
        listened, self._listened = self._listened, time.monotonic()
        late = self._listened - listened - patience
        if late > LATE:
            for world in self._worlds:
                world.put_off(late)

    # -- jobs -------------------------------------------------------------------------------

    def _advance(self, handle: _Handle, value: Any) -> None:
        if self.ended is not None and not isinstance(value, Exception):
            value = self.ended
        try:
            # What a shared job raised is raised in all that wait for it.
            wanted = (
                handle.job.throw(value) if isinstance(value, Exception) else handle.job.send(value)
            )
        except StopIteration as stop:
            self._end(handle, stop.value)
            return
        except Exception as error:
            handle.error = error
            self._end(handle, error)
            return
        if self.ended is not None:
            self._advance(handle, self.ended)
            return
        if isinstance(wanted, Shared):
            source = self._shared.get(wanted.key)
            if source is None:
                source = self._shared[wanted.key] = _Handle(wanted.make())
                source.waiting.append(handle)
                self._advance(source, None)
            elif source.finished:
                self._advance(handle, source.error or source.value)
            else:
                source.waiting.append(handle)
        elif value is None:
            self._queue.append((wanted, handle))
        else:
            # Jobs that have begun go before new ones: what they hold is freed sooner.
            self._queue.appendleft((wanted, handle))

    def _end(self, handle: _Handle, value: Any) -> None:
        handle.finished = True
        handle.value = value
        for other in handle.waiting:
            self._advance(other, value)

    def _settle(self, world: World) -> None:
        """Give what became of a world's task to who wants it, and drop the world if it is dead."""
        done = world.done if world in self._busy else None
        if isinstance(done, Answer):
            self._count(world.spec, done.seconds)
        if world.state is State.DEAD:
            self._drop(world)
        if done is not None:
            world.done = None
            _, handle = self._busy.pop(world)
            self._advance(handle, done)

    def _drop(self, world: World) -> None:
        if world in self._worlds:
            self._worlds.remove(world)
        self._forks.pop(world.number, None)
        for rank in world.ranks:
            if rank.pid and rank.exit is None:
                self._ending[rank.pid] = (world.spec.device, world.held)
            self._tokens.pop(rank.token, None)
            self._hang_up(rank)

    def _hang_up(self, rank: Rank) -> None:
        if rank.channel is not None:
            channel, rank.channel = rank.channel, None
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(channel)
            channel.close()

    # -- worlds --------------------------------------------------------------------------------

    def _ranks_busy(self) -> int:
        return sum(world.spec.size for world in self._busy)

    def _has_room(self, spec: Spec) -> bool:
        """Whether so many more ranks may be busy; a world that is too large may be so alone."""
        busy = self._ranks_busy()
        if not busy:
            return True
        if self.room is not None:
            return busy + spec.size <= self.room
        if spec.device in self.pools:
            # As many as it has devices, which :meth:`_place` sees to.
            return True
        others = [world.spec for world in self._busy if world.spec.device not in self.pools]
        return not others or sum(other.size for other in others) + spec.size <= self.cpu_places

    def _place(self, spec: Spec) -> Held | None:
        """Devices for a new world, or None while there are not enough."""
        pool = self.pools.get(spec.device)
        if pool is None:
            return Held(tuple(range(spec.size)))
        if not pool.exclusive:
            return pool.take(spec.size, self._held(spec.device))
        mine = [world for world in self._worlds if world.spec.device == spec.device]
        # A bare process may have looked at the first device of any kind.
        ending = [held for device, held in self._ending.values() if device in ("", spec.device)]
        found = pool.take(spec.size, [*(world.held for world in mine), *ending])
        if found is None:
            # Who waits gives way; there is room once those processes have ended.
            for world in mine:
                if world.state is State.IDLE and world not in self._busy:
                    world.retire()
        return found

    def _held(self, device: str) -> list[Held]:
        """The devices that busy worlds are on."""
        return [world.held for world in self._busy if world.spec.device == device]

    def _dispatch(self) -> None:
        waiting: deque[tuple[Task, _Handle]] = deque()
        while self._queue:
            task, handle = self._queue.popleft()
            try:
                world = self._world_for(task)
            except Exception as error:
                self._note(error)
                self._again(task, handle, error)
                break
            if world is None:
                waiting.append((task, handle))
            else:
                self._busy[world] = (task, handle)
                self._began = self._began or time.monotonic()
                self._sparing(world, world.assign, task)
        self._queue.extendleft(reversed(waiting))

    def _world_for(self, task: Task) -> World | None:
        """An idle world that fits, a new one where there is room, or None."""
        spec = task.spec
        if self._busy and (task.alone or any(other.alone for other, _ in self._busy.values())):
            return None
        if not self._has_room(spec):
            return None
        for world in self._worlds:
            fits = world.spec == spec and world.state in (State.STARTING, State.IDLE)
            if fits and world not in self._busy:
                if spec.device in self.pools and world.held.clashes(self._held(spec.device)):
                    continue
                if not task.fresh:
                    return world
                # It makes room for the one that is asked for.
                world.retire()
        return self._new_world(spec)

    def prepare(self, spec: Spec) -> None:
        """Have a world start that a task will want soon, where nothing needs to give way to it."""
        if spec.device not in self.pools and all(world.spec != spec for world in self._worlds):
            with contextlib.suppress(Exception):
                # Who needs it will try again.
                self._new_world(spec)

    def _new_world(self, spec: Spec) -> World | None:
        """A world that starts now; None while there are not enough devices for it."""
        held = self._place(spec)
        if held is None:
            return None
        gone = self.launcher.repair()
        if gone is not None:
            self._selector.unregister(gone)
            self._selector.register(self.launcher.listener, selectors.EVENT_READ, self._on_stranger)
        self._numbers += 1
        extra = self.start_seconds.get(spec.device, 0.0)
        world = World(self._numbers, spec, self.launcher, self.timeout, extra, held)
        self._worlds.append(world)
        self._forks[world.number] = time.monotonic()
        for rank in world.ranks:
            self._tokens[rank.token] = (world, rank)
        return world

    # -- events --------------------------------------------------------------------------------

    def _flush(self) -> None:
        try:
            self.launcher.channel.flush()
        except OSError:
            # Where it is gone, reading from it says so.
            pass
        except Exception as error:
            self._note(error)
        for world in list(self._worlds):
            self._sparing(world, self._flush_world, world)

    def _flush_world(self, world: World) -> None:
        for rank in world.ranks:
            if rank.channel is not None:
                try:
                    rank.channel.flush()
                except OSError:
                    # It is dead; the fork server will say how.
                    continue
                wanted = selectors.EVENT_READ
                if rank.channel.pending:
                    wanted |= selectors.EVENT_WRITE
                key = self._selector.get_map().get(rank.channel.fileno())
                if key is not None and key.events != wanted:
                    self._selector.modify(rank.channel, wanted, key.data)

    def _on_fork_server(self, _: object) -> None:
        try:
            frames, alive = self.launcher.channel.poll()
        except Exception as error:
            self._note(error)
            self._start_over(f"said what makes no sense ({error})")
            return
        for frame in frames:
            self._on_fork_server_frame(frame)
        if not alive:
            self._start_over("")

    def _on_fork_server_frame(self, frame: Frame) -> None:
        if frame["op"] == "forked":
            self._forks.pop(frame["world"], None)
            for world in list(self._worlds):
                if world.number == frame["world"]:
                    self._sparing(world, self._on_forked, world, frame["pids"], frame["error"])
                    return
            # Its world was given up meanwhile.
            self.launcher.kill(frame["pids"])
        elif frame["op"] == "exit":
            self._ending.pop(frame["pid"], None)
            for world in list(self._worlds):
                if any(rank.pid == frame["pid"] for rank in world.ranks):
                    self._sparing(world, self._on_exit, world, frame)

    def _on_forked(self, world: World, pids: list[int], error: str) -> None:
        world.on_forked(pids)
        if error:
            self._not_started(world, error)

    def _on_exit(self, world: World, frame: Frame) -> None:
        world.on_exit(frame["pid"], frame["status"], memory=frame["memory"])

    def _not_started(self, world: World, error: str) -> None:
        """There was no room for another process, whoever took it: the task is done again, alone."""
        task, handle = self._busy.get(world, (None, None))
        if task is not None and handle is not None and not task.alone:
            del self._busy[world]
            self._queue.appendleft((replace(task, alone=True), handle))
            world.orphan(None)
        else:
            world.orphan(f"a rank's process could not be started: {error}", "was not started")

    def _look_at_fork_server(self) -> None:
        """Replace the fork server if it is stopped, or does not answer: no rank would start again."""
        now = time.monotonic()
        if now < self._looked_at_fork_server + LOOK_AT_FORK_SERVER:
            return
        self._looked_at_fork_server = now
        oldest = min(self._forks.values(), default=now)
        if processes.state(self.launcher.process.pid) == "stopped":
            self._start_over("was stopped")
        elif now - oldest > FORK_LIMIT:
            self._start_over(f"did not answer for {FORK_LIMIT:g} s")

    def _start_over(self, what: str) -> None:
        """The process that forks ranks died, and every rank with it: begin again with another.

        ``what`` is what it did instead of dying, if so: it is killed then. Of several tasks that
        were under way, any may be to blame: each is done again, alone. One that was alone is to
        blame. Where torch cannot be imported again, that is the end of all tasks.
        """
        self._selector.unregister(self.launcher.channel)
        try:
            died = f"died ({self.launcher.restart()})"
        except Exception as error:
            self._end_all(error)
            return
        how = f"the process that forks ranks {what or died} while this ran alone"
        self._selector.register(self.launcher.channel, selectors.EVENT_READ, self._on_fork_server)
        self._ending.clear()
        self._forks.clear()
        suspects = list(self._busy.items())
        for world, (task, handle) in suspects:
            if len(suspects) == 1 and task.alone:
                self._sparing(world, world.orphan, how)
            elif world.done is None:
                del self._busy[world]
                self._queue.appendleft((replace(task, alone=True), handle))
        for world in list(self._worlds):
            if world.state is not State.DEAD:
                self._sparing(world, world.orphan, None)

    def _end_all(self, error: Exception) -> None:
        """No rank can be started any more: every job ends with that, those to come as well."""
        self.ended = StartError(
            f"the process that forks ranks died, and cannot be started again: {error}",
            getattr(error, "detail", ""),
        )
        waiting = [handle for _, handle in [*self._busy.values(), *self._queue]]
        self._busy.clear()
        self._queue.clear()
        for world in list(self._worlds):
            self._discard(world)
        for handle in waiting:
            self._advance(handle, self.ended)

    def _on_stranger(self, _: object) -> None:
        try:
            channel = self.launcher.accept(HELLO)
        except Exception as error:
            self._note(error)
            return
        if channel is None:
            return
        if len(self._strangers) >= STRANGERS:
            # A flood: the oldest goes, since a rank says who it is at once.
            self._turn_away(next(iter(self._strangers)))
        self._strangers[channel] = time.monotonic() + PATIENCE
        self._selector.register(channel, selectors.EVENT_READ, self._on_hello)

    def _turn_away(self, channel: Channel) -> None:
        self._strangers.pop(channel, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(channel)
        channel.close()

    def _on_hello(self, channel: Any) -> None:
        """The first frame of a connection says which rank it is; anything else is hung up on."""
        assert isinstance(channel, Channel)
        if channel not in self._strangers:
            return
        try:
            frames, alive = channel.poll()
        except (ProtocolError, OSError):
            frames, alive = [], False
        except Exception as error:
            # Not the stranger's fault, who may be a rank; it has its time to be heard again.
            self._note(error)
            return
        if alive and not frames:
            return
        found = self._tokens.pop(first_frame(frames[0]) or "", None) if frames else None
        if found is None:
            self._turn_away(channel)
            return
        del self._strangers[channel]
        self._selector.unregister(channel)
        world, rank = found
        rank.channel = channel
        self._sparing(world, self._welcome, world, rank, channel, frames[1:])

    def _welcome(self, world: World, rank: Rank, channel: Channel, frames: list[Frame]) -> None:
        channel.trust()
        world.on_connected(rank, channel)
        self._selector.register(
            channel,
            selectors.EVENT_READ,
            lambda _: self._sparing(world, self._on_rank, world, rank),
        )
        self._hear(world, rank, frames)

    def _on_rank(self, world: World, rank: Rank) -> None:
        channel = rank.channel
        if channel is None:
            return
        try:
            frames, alive = channel.poll()
        except ProtocolError as error:
            self._refuse(world, rank, error)
            return
        self._hear(world, rank, frames)
        if not alive:
            # Its process is ending, and the fork server will tell how.
            self._hang_up(rank)

    def _hear(self, world: World, rank: Rank, frames: list[Frame]) -> None:
        try:
            for frame in frames:
                world.on_frame(rank, frame)
        except ProtocolError as error:
            self._refuse(world, rank, error)

    def _refuse(self, world: World, rank: Rank, error: ProtocolError) -> None:
        self._hang_up(rank)
        world.on_rubbish(rank, error)
