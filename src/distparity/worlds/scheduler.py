"""Run many tasks in many worlds, in one thread.

A *job* is a generator (a coroutine) that yields :class:`Task` objects, is sent the answer or failure
of each, and returns its result. Jobs run concurrently, as many as fit. :meth:`Scheduler.result` runs
the event loop until the result of one job is there.
"""

from __future__ import annotations

import contextlib
import math
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
from distparity.worlds.fleet import Fleet, NotPlaced, Remote
from distparity.worlds.launcher import REPAIRS, Launcher, StartError, first_frame
from distparity.worlds.rank_handle import Rank
from distparity.worlds.world import Answer, Failure, Spec, State, Task, World

__all__ = ["Job", "Scheduler", "Shared"]

S = TypeVar("S")
T = TypeVar("T")


class Shared:
    """Yielded in place of a task: one job that all who yield the same key share."""

    def __init__(self, key: Hashable, make: Callable[[], Job[Any]]) -> None:
        self.key = key
        self.make = make


Job = Generator["Task | Shared", Any, T]


#: How many ranks on the CPU may be busy at once. While a rank waits for another, its core can work
#: for another world. Measured on two cores (benchmarks/suite.py): 8 ranks at once take a fifth less
#: time than 2, and more than 8 gain nothing. With many cores there is less idle time to use.
RANKS_PER_CORE = 4
MOST_BESIDE_CORES = 16

#: Limits for connections that have not yet said which rank they are: how many there may be, for how
#: many seconds, and how many bytes each may send.
STRANGERS = 32
PATIENCE = 20.0
HELLO = 4096
#: Seconds between two checks of whether the fork server is stopped, and seconds for its answer to a
#: request: on a busy machine it may still be importing what the ranks need.
LOOK_AT_FORK_SERVER = 1.0
FORK_LIMIT = 60.0
#: If this process gets no CPU for so many seconds, all time limits are extended by that time.
LATE = 0.5


def _cpu_places(cores: int) -> int:
    cores = max(2, cores)
    return min(RANKS_PER_CORE * cores, cores + MOST_BESIDE_CORES)


class _Handle:
    """A job in progress. ``error`` is the exception that it raised, if any."""

    def __init__(self, job: Job[Any]) -> None:
        self.job = job
        self.finished = False
        self.value: Any = None
        self.error: Exception | None = None
        self.waiting: list[_Handle] = []


class Scheduler:
    """Owns all worlds. ``room`` is how many ranks may be busy at once.

    If it is None, there are several ranks per core on the CPU, and one rank per device of
    :attr:`pools` on other devices.

    A bug in distparity costs at most one world, never the run: every step for a world goes through
    :meth:`_sparing`, and after an exception its task runs again, alone. If that fails too, the task
    ends with the exception. :attr:`faults` lists all such exceptions.
    """

    def __init__(
        self, launcher: Launcher, *, room: int | None = None, timeout: float = 600.0
    ) -> None:
        self.launcher = launcher
        self.fleet = Fleet(launcher)
        self.room = room
        self.cpu_places = _cpu_places(len(os.sched_getaffinity(0)))
        #: By kind of device, for kinds with a limited number of devices.
        self.pools: dict[str, Pool] = {}
        self.timeout = timeout
        #: Rank-seconds of all tasks so far, by kind of device.
        self._occupied: dict[str, float] = {}
        self._began: float | None = None
        #: By kind of device: additional seconds for the start of a world.
        self.start_seconds: dict[str, float] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(launcher.channel, selectors.EVENT_READ, self._on_fork_server)
        self._selector.register(launcher.listener, selectors.EVENT_READ, self._on_stranger)
        self._worlds: list[World] = []
        self._numbers = 0
        self._tokens: dict[str, tuple[World, Rank]] = {}
        #: Tasks that wait for a world, each with the handle of its job.
        self._queue: deque[tuple[Task, _Handle]] = deque()
        self._busy: dict[World, tuple[Task, _Handle]] = {}
        self._shared: dict[Hashable, _Handle] = {}
        #: Processes that were told to end, by id, and the devices that they hold until then.
        self._ending: dict[int, tuple[str, Held]] = {}
        #: Channels that did not take all at once.
        self._behind: set[Channel] = set()
        #: Connections that have not said which rank they are, oldest first, each with its deadline.
        self._strangers: dict[Channel, float] = {}
        #: Says why a node whose torch is imported may not take part; "" if it may.
        self.admit: Callable[[Remote], str] = lambda _: ""
        #: Exceptions raised by distparity itself, one line each.
        self.faults: list[str] = []
        #: Why no rank can be started any more: the fork server died and cannot be restarted.
        self.ended: StartError | None = None
        #: When the ranks of each world were requested, until the fork server answers.
        self._forks: dict[int, float] = {}
        self._looked_at_fork_server = time.monotonic()
        self._listened = time.monotonic()
        #: When the run's directory was last recreated.
        self._repaired = -math.inf

    # -- for users -----------------------------------------------------------------------------

    def start(self, job: Job[Any]) -> _Handle:
        """Start a job; returns the handle for :meth:`result`."""
        handle = _Handle(job)
        self._advance(handle, None)
        return handle

    def result(self, handle: _Handle) -> Any:
        """Run the event loop until the job ends; returns its result, or raises its exception."""
        while not handle.finished:
            self.turn()
        if handle.error is not None:
            raise handle.error
        return handle.value

    def run(self, job: Job[Any]) -> Any:
        return self.result(self.start(job))

    def watch(self, file: Any, act: Callable[[Any], None]) -> None:
        """Call ``act`` with a socket whenever it can be read."""
        self._selector.register(file, selectors.EVENT_READ, act)

    def add_node(self, node: Remote, cores: int) -> None:
        """Run worlds on another node too, which has so many cores, once its torch is imported."""
        self.fleet.nodes[node.number] = node
        self.cpu_places += _cpu_places(cores)
        self._selector.register(
            node.channel, selectors.EVENT_READ, lambda _: self._on_node(node, cores)
        )

    def forget(self, *kinds: str) -> None:
        """Forget the results of shared jobs whose key begins with one of these words."""
        self._shared = {
            key: handle
            for key, handle in self._shared.items()
            if not (handle.finished and isinstance(key, tuple) and key[0] in kinds)
        }

    def side_by_side(self, todo: Iterable[S], job: Callable[[S], Job[T]]) -> Iterator[tuple[S, T]]:
        """Run one job for each of ``todo``, as many at once as fit; yields the results in order."""
        waiting = iter(todo)
        handles: deque[tuple[S, _Handle]] = deque()
        while True:
            # At least one, or jobs that somebody gave up would keep these from ever beginning.
            while (self.idle or not handles) and (following := next(waiting, None)) is not None:
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
        """True if another job would find a world to run in."""
        devices = sum(map(self._devices, self.pools.values()))
        places = self.room or self.cpu_places + devices
        return len(self._queue) == 0 and self._ranks_busy() < places

    def busy(self) -> float:
        """The fraction of rank-seconds used since the first task, from 0 to 1.

        1 means that as many ranks as allowed were busy all the time. Ranks are idle if the next
        world is too large for the room that the others leave.
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
        return self.room or (self._devices(self.pools[kind]) if kind else self.cpu_places)

    def _devices(self, pool: Pool) -> int:
        return max(1, sum(map(pool.on, self.fleet.takers)))

    def turn(self, patience: float = 1.0) -> None:
        """Assign the tasks that can run now, then wait at most ``patience`` seconds for events."""
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

    # -- internal errors -------------------------------------------------------------------------

    def _sparing(self, world: World, step: Callable[..., object], *args: Any) -> None:
        """Do something for a world; an exception ends that world and nothing else."""
        try:
            step(*args)
        except Exception as error:
            self._note(error)
            busy = self._busy.pop(world, None)
            self._discard(world)
            if busy is not None:
                self._again(*busy, error)

    def _again(self, task: Task, handle: _Handle, error: Exception) -> None:
        """Run a task again, alone and once, after an internal error interrupted it."""
        if task.alone:
            self._advance(handle, error)
        else:
            self._queue.appendleft((replace(task, alone=True), handle))

    def _discard(self, world: World) -> None:
        """Discard a world in any state, broken or not, and kill its ranks."""
        for step in (world.retire, lambda: self._drop(world)):
            try:
                step()
            except Exception as error:
                self._note(error)
        world.state = State.DEAD
        with contextlib.suppress(Exception):
            self.fleet.kill([rank.pid for rank in world.ranks if rank.pid])

    def _note(self, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(where.filename)}:{where.lineno} in {where.name}"  # noqa: PTH119
        self.faults.append(f"{type(error).__name__}: {error} ({place})")

    def _forgive_lateness(self, patience: float) -> None:
        """Extend all time limits by the time that this process was suspended or had no CPU.

        Frames that ranks have sent by then are read first; a large answer takes several turns.
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
            # The exception of a shared job is raised in all jobs that wait for it.
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
            # Jobs in progress go before new ones: what they hold is freed earlier.
            self._queue.appendleft((wanted, handle))

    def _end(self, handle: _Handle, value: Any) -> None:
        handle.finished = True
        handle.value = value
        for other in handle.waiting:
            self._advance(other, value)

    def _settle(self, world: World) -> None:
        """Pass the answer or failure of a world's task to its job, and drop the world if it is dead."""
        done = world.done if world in self._busy else None
        if isinstance(done, Answer):
            self._count(world.spec, done.seconds)
            if world.is_on(0) and self._fork_server_is_stopped():
                # Whoever stopped it is among the tasks under way, and it may be this one.
                world.done = None
                self._start_over("was stopped")
                return
        if world.state is State.DEAD:
            self._drop(world)
        if done is not None:
            world.done = None
            task, handle = self._busy.pop(world)
            if isinstance(done, Failure):
                self._repair()
            lost = world.is_on(0) and world.made <= self._repaired
            if isinstance(done, Failure) and lost and not task.alone:
                # Its ranks lost their directory. The task that removed it will do so again.
                self._queue.appendleft((replace(task, alone=True), handle))
            else:
                self._advance(handle, done)

    def _drop(self, world: World) -> None:
        if world in self._worlds:
            self._worlds.remove(world)
        self._forks.pop(world.number, None)
        for rank in world.ranks:
            if rank.pid and rank.exit is None and not rank.lost:
                self._ending[rank.pid] = (world.spec.device, world.held)
            self._tokens.pop(rank.token, None)
            self._hang_up(rank)

    def _hang_up(self, rank: Rank) -> None:
        channel, rank.channel = rank.channel, None
        if isinstance(channel, Channel):
            self._behind.discard(channel)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(channel)
            channel.close()

    # -- worlds --------------------------------------------------------------------------------

    def _ranks_busy(self) -> int:
        return sum(world.spec.size for world in self._busy)

    def _has_room(self, spec: Spec) -> bool:
        """Whether the ranks of such a world may be busy now; a world that is too large runs alone."""
        busy = self._ranks_busy()
        if not busy:
            return True
        if self.room is not None:
            return busy + spec.size <= self.room
        if spec.device in self.pools:
            # The number of devices is the limit, and :meth:`_place` checks it.
            return True
        others = [world.spec for world in self._busy if world.spec.device not in self.pools]
        return not others or sum(other.size for other in others) + spec.size <= self.cpu_places

    def _place(self, spec: Spec) -> Held | None:
        """Devices for a new world; None while too few are free. Raises :class:`NotPlaced`."""
        pool = self.pools.get(spec.device)
        if pool is None:
            nodes = self._nodes_for(spec)
            return Held(
                tuple(nodes[:rank].count(node) for rank, node in enumerate(nodes)), "", nodes
            )
        nodes = self._nodes_with(pool, spec)
        wanted = Held(spec.devices, nodes=spec.nodes) if spec.devices else None
        if not pool.exclusive:
            return pool.take(spec.size, self._held(spec.device), spec.placement, nodes, wanted)
        mine = [world for world in self._worlds if world.spec.device == spec.device]
        # A bare process may have opened the first device of any kind.
        ending = [held for device, held in self._ending.values() if device in ("", spec.device)]
        held = [*(world.held for world in mine), *ending]
        found = pool.take(spec.size, held, spec.placement, nodes, wanted)
        if found is None:
            # Idle worlds are ended to make room, which is free once their processes have ended.
            for world in mine:
                if world.state is State.IDLE and world not in self._busy:
                    world.retire()
        return found

    def _nodes_with(self, pool: Pool, spec: Spec) -> tuple[int, ...]:
        """The nodes whose devices a world may have."""
        if not self.fleet.several:
            return (0,)
        nodes = tuple(dict.fromkeys(spec.nodes)) or tuple(self.fleet.takers)
        if spec.group and not spec.nodes:
            self.fleet.demand(spec.size, spec.placement)
        have = sum(pool.on(node) for node in nodes if node in self.fleet.nodes)
        if have < spec.size and not pool.sharing:
            raise NotPlaced(
                f"{spec.size} ranks on {spec.device} need {spec.size} devices, and the nodes that are "
                f"left have {have}{self.fleet.gone}",
                self.fleet.lost,
            )
        return nodes

    def _nodes_for(self, spec: Spec) -> tuple[int, ...]:
        """The node of each rank of a world without devices of its own."""
        if spec.nodes or not (spec.group and self.fleet.several):
            gone = [node for node in spec.nodes if node not in self.fleet.nodes]
            if gone:
                raise NotPlaced(f"node {gone[0]} is gone", self.fleet.lost)
            return spec.nodes or (0,) * spec.size
        load: dict[int, int] = {}
        for world in self._busy:
            for node, _ in world.held.places:
                load[node] = load.get(node, 0) + 1
        return self.fleet.cpu_places(spec.size, spec.placement, load)

    def _held(self, device: str) -> list[Held]:
        """The devices that busy worlds are on."""
        return [world.held for world in self._busy if world.spec.device == device]

    def _dispatch(self) -> None:
        waiting: deque[tuple[Task, _Handle]] = deque()
        while self._queue:
            task, handle = self._queue.popleft()
            try:
                world = self._world_for(task)
            except NotPlaced as refused:
                self._advance(handle, refused)
                continue
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
        """An idle world that fits the task, a new one if there is room, or None."""
        spec = task.spec
        self._repair()
        if self._busy and (task.alone or any(other.alone for other, _ in self._busy.values())):
            return None
        if not self._has_room(spec):
            return None
        for world in self._worlds:
            fits = world.spec == spec and world.state in (State.STARTING, State.IDLE)
            if fits and world not in self._busy:
                if spec.device in self.pools and world.held.clashes(self._held(spec.device)):
                    continue
                if not task.fresh and not world.stopped:
                    return world
                # End this idle world to make room for the requested one.
                world.retire()
        return self._new_world(spec)

    def prepare(self, spec: Spec) -> None:
        """Start a world that a task will need soon, if that does not end another world."""
        if spec.device not in self.pools and all(world.spec != spec for world in self._worlds):
            with contextlib.suppress(Exception):
                # The task that needs it will try again.
                self._new_world(spec)

    def _new_world(self, spec: Spec) -> World | None:
        """Start a world; returns None while too few devices are free."""
        held = self._place(spec)
        if held is None:
            return None
        self._numbers += 1
        extra = self.start_seconds.get(spec.device, 0.0)
        made = (self._numbers, spec, self.fleet, self.timeout, extra, held)
        for attempt in range(1, REPAIRS + 1):
            self._repair()
            try:
                world = World(*made)
                break
            except FileNotFoundError:
                # The directory was removed since.
                if attempt == REPAIRS:
                    raise
        self._worlds.append(world)
        if world.is_on(0):
            self._forks[world.number] = time.monotonic()
        for rank in world.ranks:
            self._tokens[rank.token] = (world, rank)
        return world

    def _repair(self) -> None:
        """Recreate the run's directory if somebody has removed it, and give up the worlds in it.

        Their ranks have lost the store through which they meet, and their temporary files.
        """
        gone = self.launcher.repair()
        if gone is None:
            return
        self._selector.unregister(gone)
        self._selector.register(self.launcher.listener, selectors.EVENT_READ, self._on_stranger)
        self._repaired = time.monotonic()
        for world in self._worlds:
            if world.is_on(0) and world.state is State.IDLE and world not in self._busy:
                world.retire()

    # -- events --------------------------------------------------------------------------------

    def _flush(self) -> None:
        try:
            self.launcher.channel.flush()
        except OSError:
            # If it is gone, reading from it will show that.
            pass
        except Exception as error:
            self._note(error)
        for node in self.fleet.remote:
            if node.channel.pending or node.channel in self._behind:
                # If it is gone, reading from it will show that.
                with contextlib.suppress(OSError):
                    self._flush_channel(node.channel)
        for world in list(self._worlds):
            self._sparing(world, self._flush_world, world)

    def _flush_world(self, world: World) -> None:
        # What goes to another node is flushed with the node's channel.
        for rank in world.here:
            if isinstance(rank.channel, Channel):
                # If the rank is dead, the fork server will report how.
                with contextlib.suppress(OSError):
                    self._flush_channel(rank.channel)

    def _flush_channel(self, channel: Channel) -> None:
        if not channel.pending and channel not in self._behind:
            return
        channel.flush()
        wanted = selectors.EVENT_READ
        if channel.pending:
            wanted |= selectors.EVENT_WRITE
            self._behind.add(channel)
        else:
            self._behind.discard(channel)
        key = self._selector.get_map().get(channel.fileno())
        if key is not None and key.events != wanted:
            self._selector.modify(channel, wanted, key.data)

    def _on_node(self, node: Remote, cores: int) -> None:
        """Hear what another node says of its fork server and its ranks."""
        try:
            frames, alive = node.channel.poll()
            heard = [found for found in map(node.hear, frames) if found is not None]
        except Exception as error:
            self._lose(node, f"sent what is not a message: {type(error).__name__}: {error}", cores)
            return
        for frame in heard:
            if frame["op"] in ("ready", "failed"):
                refused = self.admit(node)
                if refused:
                    self._lose(node, refused, cores)
                    return
                self.fleet.takers.append(node.number)
            else:
                self._on_node_frame(node, frame)
        if not alive:
            self._lose(node, node.reason, cores)

    def _on_node_frame(self, node: Remote, frame: Frame) -> None:
        if frame["op"] in ("forked", "exit"):
            self._on_fork_server_frame(frame, node.number)
            return
        world = self._numbered(frame["world"])
        if world is None:
            return
        if frame["op"] == "from":
            self._sparing(world, self._hear_all, world, frame["said"])
            return
        error = ProtocolError(frame["text"])
        self._sparing(world, self._refuse, world, world.ranks[frame["rank"]], error)

    def _hear_all(self, world: World, said: list[tuple[int, Frame]]) -> None:
        """Hear what several ranks of a world have said, each by its number."""
        for number, message in said:
            self._hear(world, world.ranks[number], [message])

    def _lose(self, node: Remote, why: str, cores: int) -> None:
        """Go on without a node: the tasks that ran on it fail, and worlds are made of what is left."""
        self._behind.discard(node.channel)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(node.channel)
        node.hang_up()
        del self.fleet.nodes[node.number]
        if node.number in self.fleet.takers:
            self.fleet.takers.remove(node.number)
        self.fleet.lost[node.name] = why
        self.cpu_places -= _cpu_places(cores)
        for pid in [pid for pid in self._ending if processes.node_of(pid) == node.number]:
            del self._ending[pid]
        for world in list(self._worlds):
            if world.is_on(node.number):
                self._sparing(world, world.on_lost, node.number, why)

    def _on_fork_server(self, _: object) -> None:
        try:
            frames, alive = self.launcher.channel.poll()
        except Exception as error:
            self._note(error)
            self._start_over(f"sent an invalid message ({error})")
            return
        for frame in frames:
            self._on_fork_server_frame(frame)
        if not alive:
            self._start_over("")

    def _on_fork_server_frame(self, frame: Frame, node: int = 0) -> None:
        """Handle what the fork server of a node has done; ``frame`` has ids of :func:`processes.on_node`."""
        if frame["op"] == "forked":
            if node == 0:
                self._forks.pop(frame["world"], None)
            world = self._numbered(frame["world"])
            if world is None:
                # It was given up before the answer came.
                self.fleet.kill(frame["pids"])
            else:
                self._sparing(world, self._on_forked, world, frame["pids"], frame["error"], node)
        elif frame["op"] == "exit":
            self._ending.pop(frame["pid"], None)
            for world in list(self._worlds):
                if any(rank.pid == frame["pid"] for rank in world.ranks):
                    self._sparing(world, self._on_exit, world, frame)

    def _numbered(self, number: int) -> World | None:
        return next((world for world in self._worlds if world.number == number), None)

    def _on_forked(self, world: World, pids: list[int], error: str, node: int) -> None:
        world.on_forked(pids, node)
        if error:
            self._not_started(world, error)

    def _on_exit(self, world: World, frame: Frame) -> None:
        world.on_exit(frame["pid"], frame["status"], memory=frame["memory"])

    def _not_started(self, world: World, error: str) -> None:
        """Run a task again, alone, because the machine had no room for another process."""
        task, handle = self._busy.get(world, (None, None))
        if task is not None and handle is not None and not task.alone:
            del self._busy[world]
            self._queue.appendleft((replace(task, alone=True), handle))
            world.orphan(None)
        else:
            world.orphan(f"a rank's process could not be started: {error}", "was not started")

    def _look_at_fork_server(self) -> None:
        """Replace the fork server if it is stopped or does not answer: it would start no more ranks."""
        now = time.monotonic()
        if now < self._looked_at_fork_server + LOOK_AT_FORK_SERVER:
            return
        self._looked_at_fork_server = now
        oldest = min(self._forks.values(), default=now)
        if self._fork_server_is_stopped():
            self._start_over("was stopped")
        elif now - oldest > FORK_LIMIT:
            self._start_over(f"did not answer for {FORK_LIMIT:g} s")

    def _fork_server_is_stopped(self) -> bool:
        return processes.state(self.launcher.process.pid) == "stopped"

    def _start_over(self, what: str) -> None:
        """Start another fork server after it died, and every rank with it.

        ``what`` says what it did if it did not die; it is then killed. If several tasks were running,
        any of them may be the cause: each runs again, alone. A task that was running alone is the
        cause. If torch cannot be imported again, all tasks end.
        """
        self._selector.unregister(self.launcher.channel)
        try:
            died = f"died ({self.launcher.restart()})"
        except Exception as error:
            self._end_all(error)
            return
        how = f"the fork server {what or died} while this task ran alone"
        self._selector.register(self.launcher.channel, selectors.EVENT_READ, self._on_fork_server)
        for pid in [pid for pid in self._ending if not processes.node_of(pid)]:
            del self._ending[pid]
        self._forks.clear()
        suspects = [(world, busy) for world, busy in self._busy.items() if world.is_on(0)]
        for world, (task, handle) in suspects:
            if len(suspects) == 1 and task.alone:
                self._sparing(world, world.orphan, how)
            elif world.done is None:
                del self._busy[world]
                self._queue.appendleft((replace(task, alone=True), handle))
        for world in list(self._worlds):
            if world.state is not State.DEAD and world.is_on(0):
                self._sparing(world, world.orphan, None)

    def _end_all(self, error: Exception) -> None:
        """End every job, now and later, because no rank can be started any more."""
        self.ended = StartError(
            f"the fork server died and cannot be restarted: {error}",
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
            # Too many connections: close the oldest, because a rank says at once which rank it is.
            self._turn_away(next(iter(self._strangers)))
        self._strangers[channel] = time.monotonic() + PATIENCE
        self._selector.register(channel, selectors.EVENT_READ, self._on_hello)

    def _turn_away(self, channel: Channel) -> None:
        self._strangers.pop(channel, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(channel)
        channel.close()

    def _on_hello(self, channel: Any) -> None:
        """Read a connection's first frame, which says which rank it is; close any other connection."""
        assert isinstance(channel, Channel)
        if channel not in self._strangers:
            return
        try:
            frames, alive = channel.poll()
        except (ProtocolError, OSError):
            frames, alive = [], False
        except Exception as error:
            # An error of ours, and the connection may be a rank's: it may try until its deadline.
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
        if not isinstance(channel, Channel):
            return
        try:
            frames, alive = channel.poll()
        except ProtocolError as error:
            self._refuse(world, rank, error)
            return
        self._hear(world, rank, frames)
        if not alive:
            # The rank's process is ending, and the fork server will report how.
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
