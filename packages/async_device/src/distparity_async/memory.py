"""Who has which memory, by the rules of a caching allocator.

A block belongs to the stream on which it was allocated. Freed, it goes back to that stream at once:
the next allocation there may get it, whatever other streams still do with it, unless they were named
by ``record_stream``; then it is held until these have passed the place at which it was freed. What
an allocator would hand out by chance of sizes is here handed out always: with the next allocation on
its stream, every block that was freed there is overwritten, as by the new owner's first kernel.

The bytes themselves are another matter: they stay where they are until nothing that was put on a
queue before can touch them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from distparity_async.checker import Access, Checker, History, Site
from distparity_async.scheduler import Mark, Scheduler, Stream

__all__ = ["Block", "Memory", "Raw", "Statistics"]

#: Fresh memory is full of it: NaN in every floating dtype, -1 in every signed one.
POISON = 0xFF
#: Blocks are as coarse as a real allocator's.
GRAIN = 512


class Raw(Protocol):
    """The machine's memory."""

    def get_memory(self, size: int) -> int: ...
    def give_memory(self, pointer: int) -> None: ...
    def fill(self, pointer: int, byte: int, size: int) -> None: ...
    def move(self, target: int, source: int, size: int) -> None: ...
    def take_freed(self) -> list[int]: ...
    def take_gone_events(self) -> list[int]: ...
    def note_pinned(self, pointer: int, size: int) -> None: ...
    def forget_pinned(self, pointer: int) -> None: ...
    def watch(self, spans: list[tuple[int, int]]) -> None: ...


@dataclass(eq=False)
class Block:
    """Some memory of a device, or of the host where it is pinned."""

    pointer: int
    size: int
    #: None for the host's.
    stream: Stream | None
    site: Callable[[], Site]
    history: History = field(default_factory=History)
    #: Other streams that use it, by ``record_stream``, each with its end when it was freed.
    recorded: dict[Stream, int] = field(default_factory=dict)


@dataclass
class Count:
    """How much is in use, the most there was, and all that was ever taken and given back."""

    now: int = 0
    peak: int = 0
    taken: int = 0
    given: int = 0

    def add(self, much: int) -> None:
        self.now += much
        self.peak = max(self.peak, self.now)
        self.taken += max(much, 0)
        self.given += max(-much, 0)


@dataclass
class Statistics:
    """The memory of a device that is in use, in bytes and in blocks."""

    bytes: Count = field(default_factory=Count)
    blocks: Count = field(default_factory=Count)

    def add(self, size: int) -> None:
        self.bytes.add(size)
        self.blocks.add(1 if size > 0 else -1)

    def forget_peak(self) -> None:
        for count in (self.bytes, self.blocks):
            count.peak = count.now

    def forget_accumulated(self) -> None:
        for count in (self.bytes, self.blocks):
            count.taken = count.given = 0


class Memory:
    """All blocks of a process."""

    def __init__(self, raw: Raw, scheduler: Scheduler, checker: Checker | None) -> None:
        self._raw = raw
        self._scheduler = scheduler
        self._checker = checker
        self._live: dict[int, Block] = {}
        #: Freed, and not handed out again, by the stream to which they belong.
        self._freed: dict[Stream, list[Block]] = {}
        #: Handed out again, with the ends of the queues that may still touch their bytes.
        self._parked: list[tuple[list[Mark], Block]] = []
        self._pool: dict[int, list[int]] = {}
        #: Pinned blocks at which a stream may still be.
        self._shared: dict[int, Block] = {}
        self.statistics: dict[int, Statistics] = {}

    def block(self, pointer: int) -> Block | None:
        """The block that begins there, or None where it is not ours."""
        return self._live.get(pointer)

    # -- the device's --------------------------------------------------------------------------

    def allocate(self, size: int, stream: Stream, site: Callable[[], Site]) -> int:
        self.collect()
        self._reuse(stream, site)
        block = self._fresh(size, stream, site)
        self._raw.fill(block.pointer, POISON, block.size)
        self._count(stream.device).add(size)
        return block.pointer

    def record_stream(self, pointer: int, stream: Stream) -> None:
        block = self._live.get(pointer)
        if block is not None and stream is not block.stream:
            block.recorded[stream] = 0

    def collect(self) -> None:
        """Take in what was freed since the last time."""
        for pointer in self._raw.take_freed():
            block = self._live.pop(pointer)
            if block.stream is None:
                self._raw.forget_pinned(pointer)
                # As torch's pinned blocks are: not handed out while a copy is under way.
                self._parked.append((self._scheduler.outstanding(), block))
                continue
            self._count(block.stream.device).add(-block.size)
            block.recorded = {one: one.issued for one in block.recorded}
            if self._checker is not None:
                # It is held until these have passed, and with them what they come after.
                for one in block.recorded:
                    block.history.forget(functools.partial(self._checker.is_before, stream=one))
            self._freed.setdefault(block.stream, []).append(block)
        self._unpark()

    def _reuse(self, stream: Stream, site: Callable[[], Site]) -> None:
        """Hand out what was freed on a stream to its next allocation: overwrite it in order."""
        held = []
        for block in self._freed.pop(stream, []):
            if any(one.done < position for one, position in block.recorded.items()):
                held.append(block)
                continue
            if self._checker is not None:
                place = self._checker.issue(stream)
                accesses = block.history.all()
                if any(access.stream is not stream for access in accesses):
                    told = _reused(block, site)
                    self._checker.access(
                        block.history, Access(stream, place, 0, block.size, True, told)
                    )
            self._scheduler.put(stream, _Fill(self._raw, block))
            self._parked.append((self._scheduler.outstanding(), block))
        if held:
            self._freed[stream] = held

    def _unpark(self) -> None:
        kept = []
        for marks, block in self._parked:
            if all(mark.is_done() for mark in marks):
                self._pool.setdefault(_rounded(block.size), []).append(block.pointer)
            else:
                kept.append((marks, block))
        self._parked = kept

    def _fresh(self, size: int, stream: Stream | None, site: Callable[[], Site]) -> Block:
        rounded = _rounded(size)
        pool = self._pool.get(rounded)
        pointer = pool.pop() if pool else self._raw.get_memory(rounded)
        block = self._live[pointer] = Block(pointer, size, stream, site, History(pointer))
        return block

    def empty_cache(self) -> None:
        self.collect()
        for pointers in self._pool.values():
            for pointer in pointers:
                self._raw.give_memory(pointer)
        self._pool.clear()

    def _count(self, device: int) -> Statistics:
        return self.statistics.setdefault(device, Statistics())

    def count(self, device: int) -> Statistics:
        self.collect()
        return self._count(device)

    # -- the host's ----------------------------------------------------------------------------

    def allocate_pinned(self, size: int, site: Callable[[], Site]) -> int:
        self.collect()
        block = self._fresh(size, None, site)
        self._raw.fill(block.pointer, POISON, block.size)
        self._raw.note_pinned(block.pointer, size)
        return block.pointer

    def share(self, block: Block) -> None:
        """A stream was given something to do with a pinned block: watch what the host does there."""
        if self._checker is not None and block.pointer not in self._shared:
            self._shared[block.pointer] = block
            self._watch()

    @property
    def is_watched(self) -> bool:
        """Whether a stream may still be at pinned memory."""
        return bool(self._shared)

    def settle(self) -> None:
        """The host has waited for something: where nothing is under way, there is nothing to watch."""
        if self._shared and self._checker is not None:
            known = self._checker.is_known_to_host
            over = [
                pointer
                for pointer, block in self._shared.items()
                if all(map(known, block.history.all()))
            ]
            for pointer in over:
                del self._shared[pointer]
            if over:
                self._watch()

    def _watch(self) -> None:
        self._raw.watch([(block.pointer, block.size) for block in self._shared.values()])

    def host_access(self, low: int, high: int, writes: bool, site: Callable[[], Site]) -> None:
        for block in list(self._shared.values()):
            start = block.pointer
            if low < start + block.size and start < high and self._checker is not None:
                span = (max(low - start, 0), min(high - start, block.size))
                self._checker.host_access(block.history, *span, writes, site)


class _Fill:
    """What a block's next owner would do first, in its stream's order."""

    __slots__ = ("block", "raw")

    def __init__(self, raw: Raw, block: Block) -> None:
        self.raw = raw
        self.block = block

    def __call__(self) -> None:
        self.raw.fill(self.block.pointer, POISON, self.block.size)


def _rounded(size: int) -> int:
    return -(-size // GRAIN) * GRAIN


def _reused(block: Block, site: Callable[[], Site]) -> Callable[[], Site]:
    def told() -> Site:
        return Site(f"the next owner of {block.size} freed bytes", site().frames)

    return told
