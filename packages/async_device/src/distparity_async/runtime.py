"""What the C++ part asks: streams, events and memory, each by its number, from any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any

from distparity_async.checker import Access, Checker, Clock, Site
from distparity_async.memory import Block, Memory, Raw
from distparity_async.names import Names
from distparity_async.scheduler import Mark, Mode, Scheduler, Stream
from distparity_async.sites import Here

__all__ = ["Runtime", "Touch"]

#: Seconds without a call, and with less than this share of a core in use, after which the device gets
#: on by itself; and seconds between two looks.
_IDLE, _BLOCKED, _LOOK = 0.5, 0.05, 0.1
#: A tensor's block, the span of bytes, and whether they are written.
Touch = tuple[int, int, int, bool]


@dataclass
class Event:
    """Where an event was recorded last, what is ordered before it, and when it passed (ms)."""

    mark: Mark
    clock: Clock
    passed: float | None = None


@dataclass
class Draws:
    """A device's generator: a seed, and how much was drawn from it."""

    seed: int = 0
    offset: int = 0


@dataclass
class Runtime:
    """A process's devices. Methods without an underscore are called from C++, under the GIL."""

    raw: Raw
    mode: Mode
    checks: bool = True
    devices: int = 1
    lock: Any = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.mode)
        self._names = Names()
        self.checker = Checker(self._names.of) if self.checks else None
        self.memory = Memory(self.raw, self.scheduler, self.checker)
        self.events: dict[int, Event] = {}
        self.draws: dict[int, Draws] = {}
        #: Operations that made the host wait though they need not, by name.
        self.waited: dict[str, int] = {}

    def begin(self, mode: Mode) -> None:
        """Begin a case: chance begins anew, and what the checker found before is forgotten."""
        with self.lock:
            self.scheduler.drain()
            # What frees memory later, of what went before, is behind all of that.
            self._learn_streams(list(self.scheduler.streams.values()))
            self.mode = mode
            self.scheduler.begin(mode)
            self._names.forget()
            if self.checker is not None:
                self.checker.begin()

    def watch(self) -> None:
        """Begin to get on where the host waits and does nothing.

        It may wait for another process, by no means of the device, and that one for what is on a queue
        here. Devices do their work whether or not their host asks.
        """
        threading.Thread(target=self._watch, name="asim", daemon=True).start()

    def _watch(self) -> None:
        calls, since, used = -1, 0.0, 0.0
        while True:
            time.sleep(_LOOK)
            now, cpu = time.monotonic(), time.process_time()
            if self.scheduler.calls != calls or cpu - used > _BLOCKED * (now - since):
                calls, since, used = self.scheduler.calls, now, cpu
            elif now - since > _IDLE and self.scheduler.outstanding():
                with self.lock:
                    if self.scheduler.calls == calls:
                        self.scheduler.get_on()

    def draws_of(self, device: int) -> Draws:
        return self.draws.setdefault(device, Draws())

    # -- memory --------------------------------------------------------------------------------

    def allocate(self, size: int, device: int, number: int) -> int:
        with self.lock:
            stream = self.scheduler.stream(device, number)
            return self.memory.allocate(size, stream, Here("an allocation"))

    def allocate_pinned(self, size: int) -> int:
        with self.lock:
            return self.memory.allocate_pinned(size, Here("an allocation"))

    def statistics(self, device: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Bytes and blocks of a device: now, at most, taken and given back."""
        with self.lock:
            found = self.memory.count(device)
            return astuple(found.bytes), astuple(found.blocks)

    def forget_peak(self, device: int) -> None:
        with self.lock:
            self.memory.count(device).forget_peak()

    def forget_accumulated(self, device: int) -> None:
        with self.lock:
            self.memory.count(device).forget_accumulated()

    def empty_cache(self) -> None:
        with self.lock:
            self.memory.empty_cache()

    def record_stream(self, pointer: int, device: int, number: int) -> None:
        with self.lock:
            self.memory.record_stream(pointer, self.scheduler.stream(device, number))

    def move(self, target: int, source: int, size: int) -> None:
        """Keep a storage's bytes when it is resized."""
        with self.lock:
            block = self.memory.block(source)
            if block is None or block.stream is None:
                return
            stream = block.stream
            touches = [(source, 0, size, False), (target, 0, size, True)]
            self.issue(stream, "resize", touches, lambda: self.raw.move(target, source, size))

    def host_access(self, low: int, high: int, writes: bool, name: str) -> None:
        with self.lock:
            self.memory.host_access(low, high, writes, Here(name))

    # -- streams -------------------------------------------------------------------------------

    def new_stream(self, device: int, priority: int) -> int:
        with self.lock:
            return self.scheduler.new_stream(device, priority).number

    def query_stream(self, device: int, number: int) -> bool:
        with self.lock:
            stream = self.scheduler.stream(device, number)
            done = self.scheduler.ask(Mark(stream, stream.issued))
            if done:
                self._learn_streams([stream])
            return done

    def synchronize_stream(self, device: int, number: int) -> None:
        with self.lock:
            stream = self.scheduler.stream(device, number)
            self.scheduler.reach(Mark(stream, stream.issued))
            self._learn_streams([stream])

    def synchronize_device(self, device: int) -> None:
        with self.lock:
            self.scheduler.drain(device)
            self._learn_streams([s for s in self.scheduler.streams.values() if s.device == device])

    def _learn_streams(self, streams: list[Stream]) -> None:
        if self.checker is not None:
            self.checker.learn_all(streams)
        self.memory.settle()

    # -- events --------------------------------------------------------------------------------

    def record(self, number: int, device: int, stream: int) -> None:
        with self.lock:
            for gone in self.raw.take_gone_events():
                self.events.pop(gone, None)
            event = self.mark(self.scheduler.stream(device, stream))
            self.events[number] = event

    def mark(self, stream: Stream) -> Event:
        """An event that has just been recorded on a stream."""
        clock = self.checker.record(stream) if self.checker is not None else {}
        event = Event(Mark(stream, stream.issued + 1), clock)

        def passes() -> None:
            event.passed = time.perf_counter() * 1e3

        self.scheduler.put(stream, passes)
        return event

    def block(self, number: int, device: int, stream: int) -> None:
        with self.lock:
            event = self.events.get(number)
            if event is not None:
                self.follow(self.scheduler.stream(device, stream), event)

    def follow(self, stream: Stream, event: Event) -> None:
        """Have a stream wait for an event."""
        if stream is not event.mark.stream:
            if self.checker is not None:
                self.checker.wait(stream, event.clock)
            self.scheduler.put(stream, None, event.mark)

    def query_event(self, number: int) -> bool:
        with self.lock:
            event = self.events.get(number)
            return event is None or self.has_passed(event)

    def has_passed(self, event: Event) -> bool:
        """Whether it has; where it has, the host knows that now."""
        done = self.scheduler.ask(event.mark)
        if done:
            self._learn(event)
        return done

    def synchronize_event(self, number: int) -> None:
        with self.lock:
            event = self.events.get(number)
            if event is not None:
                self.await_event(event)

    def await_event(self, event: Event) -> None:
        """Have the host wait for it."""
        self.scheduler.reach(event.mark)
        self._learn(event)

    def _learn(self, event: Event) -> None:
        if self.checker is not None:
            self.checker.learn(event.clock)
        self.memory.settle()

    def elapsed(self, first: int, second: int) -> float:
        with self.lock:
            one, other = self.events[first], self.events[second]
            if one.passed is None or other.passed is None:
                raise RuntimeError("asim: elapsed_time needs both events to have passed")
            return other.passed - one.passed

    # -- what is put on streams ----------------------------------------------------------------

    def issue(
        self, stream: Stream, name: str, touches: list[Touch], act: Callable[[], object]
    ) -> Mark:
        """Put an operation on a stream, and hold its accesses to memory against earlier ones."""
        if self.checker is not None:
            self.check(stream, Here(name), touches)
        return self.scheduler.put(stream, act)

    def check(self, stream: Stream, site: Callable[[], Site], touches: list[Touch]) -> None:
        """Hold accesses against earlier ones, at the stream's next place."""
        checker = self.checker
        assert checker is not None
        place = checker.issue(stream)
        for pointer, low, high, writes in touches:
            block = self.memory.block(pointer)
            if block is not None and low < high:
                checker.access(block.history, Access(stream, place, low, high, writes, site))
                if block.stream is None:
                    self.memory.share(block)

    def host_touch(self, name: str, pointer: int, low: int, high: int, *, writes: bool) -> None:
        """The host reads or writes memory itself, as a copy does that it waits for."""
        if self.checker is not None:
            block: Block | None = self.memory.block(pointer)
            if block is not None:
                self.checker.host_access(block.history, low, high, writes, Here(name))

    def races(self) -> list[str]:
        """What the checker found since :meth:`begin`, one text each, with how often it was seen."""
        if self.checker is None:
            return []
        with self.lock:
            found = self.checker.races.items()
            return [f"{race}" + (f" ({times} times)" if times > 1 else "") for race, times in found]
