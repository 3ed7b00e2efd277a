"""Many worlds, many tasks, one thread.

An *errand* is a generator that yields :class:`Task` objects, is sent what became of each, and
returns its result. Errands run side by side, as many as there is room for; whoever wants a result
calls :meth:`Scheduler.result`, which turns the wheel until it is there.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable
from typing import Any, TypeVar

from distparity.worlds.launcher import Launcher, StartError, first_frame
from distparity.worlds.wire import Channel, ProtocolError
from distparity.worlds.world import Answer, Rank, Spec, State, Task, World

__all__ = ["Errand", "Scheduler", "Shared"]

T = TypeVar("T")


class Shared:
    """Yielded in place of a task: the same errand for everybody who asks by the same key."""

    def __init__(self, key: Hashable, make: Callable[[], Errand[Any]]) -> None:
        self.key = key
        self.make = make


Errand = Generator["Task | Shared", Any, T]


class _Job:
    def __init__(self, errand: Errand[Any]) -> None:
        self.errand = errand
        self.finished = False
        self.value: Any = None
        self.waiting: list[_Job] = []


class Scheduler:
    """Owns all worlds. ``room`` is how many ranks may be busy at once."""

    def __init__(
        self, launcher: Launcher, *, room: int | None = None, timeout: float = 600.0
    ) -> None:
        self.launcher = launcher
        self.room = room or max(2, os.cpu_count() or 2)
        self.timeout = timeout
        self.seconds_in_ranks = 0.0
        #: By kind of device: what a world may take to start beyond what all are given.
        self.start_seconds: dict[str, float] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(launcher.channel, selectors.EVENT_READ, self._on_zygote)
        self._selector.register(launcher.listener, selectors.EVENT_READ, self._on_stranger)
        self._worlds: list[World] = []
        self._numbers = 0
        self._tokens: dict[str, tuple[World, Rank]] = {}
        #: Tasks that wait for a world, each with the job that wants its answer.
        self._queue: deque[tuple[Task, _Job]] = deque()
        self._busy: dict[World, _Job] = {}
        self._shared: dict[Hashable, _Job] = {}

    # -- for users -----------------------------------------------------------------------------

    def start(self, errand: Errand[Any]) -> _Job:
        """Begin an errand; returns the handle that :meth:`result` takes."""
        job = _Job(errand)
        self._advance(job, None)
        return job

    def result(self, job: _Job) -> Any:
        """Turn the wheel until the errand has ended; returns what it returned."""
        while not job.finished:
            self.turn()
        return job.value

    def run(self, errand: Errand[Any]) -> Any:
        return self.result(self.start(errand))

    @property
    def idle(self) -> bool:
        """True when another errand would find something to run on."""
        return len(self._queue) == 0 and self._ranks_busy() < self.room

    def turn(self, patience: float = 1.0) -> None:
        """Hand out what can be handed out, then wait for one round of events."""
        self._dispatch()
        self._flush()
        now = time.monotonic()
        wake = min([now + patience, *(world.wake for world in self._worlds)])
        for key, _ in self._selector.select(max(0.0, wake - now)):
            key.data(key.fileobj)
        for world in list(self._worlds):
            world.tick()
        self._settle()

    def close(self) -> None:
        for world in list(self._worlds):
            world.retire()
            self._drop(world)
        self._selector.close()

    # -- errands -------------------------------------------------------------------------------

    def _advance(self, job: _Job, value: Any) -> None:
        try:
            wanted = job.errand.send(value)
        except StopIteration as stop:
            job.finished = True
            job.value = stop.value
            for other in job.waiting:
                self._advance(other, stop.value)
            return
        if isinstance(wanted, Shared):
            source = self._shared.get(wanted.key)
            if source is None:
                source = self._shared[wanted.key] = _Job(wanted.make())
                source.waiting.append(job)
                self._advance(source, None)
            elif source.finished:
                self._advance(job, source.value)
            else:
                source.waiting.append(job)
        elif value is None:
            self._queue.append((wanted, job))
        else:
            # Errands that have begun go before new ones: what they hold is freed sooner.
            self._queue.appendleft((wanted, job))

    def _settle(self) -> None:
        for world in list(self._worlds):
            if world.done is not None and world in self._busy:
                job = self._busy.pop(world)
                done, world.done = world.done, None
                if isinstance(done, Answer):
                    self.seconds_in_ranks += done.seconds
                if world.state is State.DEAD:
                    self._drop(world)
                self._advance(job, done)
            elif world.state is State.DEAD:
                self._drop(world)

    def _drop(self, world: World) -> None:
        self._worlds.remove(world)
        for rank in world.ranks:
            self._tokens.pop(rank.token, None)
            self._hang_up(rank)

    def _hang_up(self, rank: Rank) -> None:
        if rank.channel is not None:
            self._selector.unregister(rank.channel)
            rank.channel.close()
            rank.channel = None

    # -- worlds --------------------------------------------------------------------------------

    def _ranks_busy(self) -> int:
        return sum(world.spec.size for world in self._busy)

    def _dispatch(self) -> None:
        waiting: deque[tuple[Task, _Job]] = deque()
        while self._queue:
            task, job = self._queue.popleft()
            world = self._world_for(task.spec)
            if world is None:
                waiting.append((task, job))
            else:
                self._busy[world] = job
                world.assign(task)
        self._queue = waiting

    def _world_for(self, spec: Spec) -> World | None:
        """An idle world that fits, a new one where there is room, or None."""
        busy = self._ranks_busy()
        if busy and busy + spec.size > self.room:
            return None
        for world in self._worlds:
            if world.spec == spec and world.state is State.IDLE and world not in self._busy:
                return world
        self._numbers += 1
        extra = self.start_seconds.get(spec.device, 0.0)
        world = World(self._numbers, spec, self.launcher, self.timeout, extra)
        self._worlds.append(world)
        for rank in world.ranks:
            self._tokens[rank.token] = (world, rank)
        return world

    # -- events --------------------------------------------------------------------------------

    def _flush(self) -> None:
        self.launcher.channel.flush()
        for world in self._worlds:
            for rank in world.ranks:
                if rank.channel is not None:
                    try:
                        rank.channel.flush()
                    except OSError:
                        # It is dead; the zygote will say how.
                        continue
                    wanted = selectors.EVENT_READ
                    if rank.channel.pending:
                        wanted |= selectors.EVENT_WRITE
                    key = self._selector.get_map().get(rank.channel.fileno())
                    if key is not None and key.events != wanted:
                        self._selector.modify(rank.channel, wanted, key.data)

    def _on_zygote(self, _: object) -> None:
        frames, alive = self.launcher.channel.poll()
        for frame in frames:
            if frame["op"] == "forked":
                for world in self._worlds:
                    if world.number == frame["world"]:
                        world.on_forked(frame["pids"])
            elif frame["op"] == "exit":
                any(world.on_exit(frame["pid"], frame["status"]) for world in self._worlds)
        if not alive:
            raise StartError("the process that forks ranks died")

    def _on_stranger(self, _: object) -> None:
        channel = self.launcher.accept()
        if channel is not None:
            self._selector.register(channel, selectors.EVENT_READ, self._on_hello)

    def _on_hello(self, channel: Any) -> None:
        """The first frame of a connection says which rank it is; anything else is hung up on."""
        assert isinstance(channel, Channel)
        try:
            frames, alive = channel.poll()
        except ProtocolError:
            frames, alive = [], False
        if alive and not frames:
            return
        self._selector.unregister(channel)
        found = self._tokens.pop(first_frame(frames[0]) or "", None) if frames else None
        if found is None:
            channel.close()
            return
        world, rank = found
        world.on_connected(rank, channel)
        self._selector.register(
            channel, selectors.EVENT_READ, lambda _, w=world, r=rank: self._on_rank(w, r)
        )
        for frame in frames[1:]:
            world.on_frame(rank, frame)

    def _on_rank(self, world: World, rank: Rank) -> None:
        channel = rank.channel
        if channel is None:
            return
        try:
            frames, alive = channel.poll()
        except ProtocolError as error:
            self._hang_up(rank)
            world.on_rubbish(rank, error)
            return
        for frame in frames:
            world.on_frame(rank, frame)
        if not alive:
            # Its process is ending, and the zygote will tell how.
            self._hang_up(rank)
