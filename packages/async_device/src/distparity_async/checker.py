"""Which accesses to memory have no order between them, whatever the timing.

Happens-before with vector clocks. An access has a place in time: so many accesses of its stream
came before it. A stream's clock says up to where of every stream it is ordered behind: it takes over
an event's clock when it waits for it, and the host's when the host puts something on it; the host
takes over what it waits for. Two accesses that touch the same bytes, one of which writes, need the
later one's clock to hold the earlier. It is decided when work is put on a stream, so that it is the
same in every mode.

All of it is plain Python and knows nothing of torch. The host's own accesses are those of the stream
``HOST``; all its threads are taken for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["HOST", "Access", "Checker", "Clock", "History", "Race", "Site"]

#: Up to where of every stream something is ordered behind. Streams are hashable, and print well.
Clock = dict[Any, int]
HOST = "host"
#: So many different races are kept; who has more has one fault many times.
MOST = 200


@dataclass(frozen=True)
class Site:
    """Where in the program an access was put on its stream."""

    operation: str
    #: ``file:line in function``, innermost first.
    frames: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = " from ".join(self.frames) or "a thread without Python (backward)"
        return f"{self.operation} at {where}"


@dataclass(frozen=True)
class Access:
    """A read or a write of a span of bytes in a block, at a place of a stream."""

    stream: Any
    position: int
    low: int
    high: int
    writes: bool
    #: What makes a :class:`Site`, where somebody asks for it.
    site: Callable[[], Site]

    @property
    def verb(self) -> str:
        return "write" if self.writes else "read"


@dataclass(frozen=True)
class Race:
    """Two accesses to the same bytes without an order."""

    first: tuple[str, str, Site]
    second: tuple[str, str, Site]
    #: Whose bytes they were the first time, where that is known.
    tensor: str = field(default="", compare=False)

    def __str__(self) -> str:
        (one, here, at), (other, there, then) = self.first, self.second
        places = f"the {one} on the {here} ({at}) and the {other} on the {there} ({then})"
        return f"no order between {places}" + (f", in {self.tensor}" if self.tensor else "")


@dataclass
class History:
    """The accesses of a block that later ones may still meet."""

    #: Where the block begins.
    pointer: int = 0
    #: By stream and span, the latest each.
    reads: dict[tuple[Any, int, int], Access] = field(default_factory=dict)
    writes: dict[tuple[Any, int, int], Access] = field(default_factory=dict)

    def all(self) -> list[Access]:
        return [*self.writes.values(), *self.reads.values()]

    def forget(self, is_over: Callable[[Access], bool]) -> None:
        for kept in (self.reads, self.writes):
            for key in [key for key, access in kept.items() if is_over(access)]:
                del kept[key]


class Checker:
    """The clocks of all streams, and the races that were found.

    ``name_of`` says whose memory begins at an address, empty for nobody's.
    """

    def __init__(self, name_of: Callable[[int], str] = lambda _: "") -> None:
        self._name_of = name_of
        self._clocks: dict[Any, Clock] = {HOST: {HOST: 0}}
        #: How often the host has learned something; a stream takes it over when it has changed.
        self._news = 0
        self._heard: dict[Any, int] = {}
        self.races: dict[Race, int] = {}

    def begin(self) -> None:
        """Forget the races, not the order."""
        self.races.clear()

    # -- order ---------------------------------------------------------------------------------

    def issue(self, stream: Any) -> int:
        """The host puts something on a stream; returns its place there."""
        clock = self._clocks.get(stream)
        if clock is None:
            clock = self._clocks[stream] = {stream: 0}
        if self._heard.get(stream) != self._news:
            self._heard[stream] = self._news
            _merge(clock, self._clocks[HOST])
        clock[stream] += 1
        return clock[stream]

    def record(self, stream: Any) -> Clock:
        """What an event that is recorded on a stream, or the end of a work, is ordered behind."""
        self.issue(stream)
        return dict(self._clocks[stream])

    def wait(self, stream: Any, clock: Clock) -> None:
        """A stream waits for an event."""
        self.issue(stream)
        _merge(self._clocks[stream], clock)

    def learn(self, clock: Clock) -> None:
        """The host waits for an event, or hears that it has passed."""
        _merge(self._clocks[HOST], clock)
        self._news += 1

    def learn_all(self, streams: list[Any]) -> None:
        """The host waits for streams."""
        for stream in streams:
            if stream in self._clocks:
                self.learn(self._clocks[stream])

    def is_known_to_host(self, access: Access) -> bool:
        return self.is_before(access, HOST)

    def is_before(self, access: Access, stream: Any) -> bool:
        """Whether what a stream does next comes after an access."""
        return self._clocks.get(stream, {}).get(access.stream, 0) >= access.position

    # -- accesses ------------------------------------------------------------------------------

    def access(self, history: History, access: Access) -> None:
        """Hold an access against the earlier ones of its block, and note it."""
        clock = self._clocks[access.stream]
        for earlier in history.writes.values():
            self._meet(history, clock, earlier, access)
        if access.writes:
            for earlier in history.reads.values():
                self._meet(history, clock, earlier, access)
            history.forget(lambda old: access.low <= old.low and old.high <= access.high)
        kept = history.writes if access.writes else history.reads
        kept[access.stream, access.low, access.high] = access

    def host_access(
        self, history: History, low: int, high: int, writes: bool, site: Callable[[], Site]
    ) -> None:
        """An operation of the CPU on pinned memory."""
        clock = self._clocks[HOST]
        clock[HOST] += 1
        self._news += 1
        self.access(history, Access(HOST, clock[HOST], low, high, writes, site))

    def _meet(self, history: History, clock: Clock, earlier: Access, later: Access) -> None:
        if (
            earlier.stream is not later.stream
            and earlier.low < later.high
            and later.low < earlier.high
            and clock.get(earlier.stream, 0) < earlier.position
        ):
            race = Race(_told(earlier), _told(later))
            if race in self.races:
                self.races[race] += 1
            elif len(self.races) < MOST:
                self.races[replace(race, tensor=self._name_of(history.pointer))] = 1


def _merge(clock: Clock, other: Clock) -> None:
    for stream, position in other.items():
        if clock.get(stream, -1) < position:
            clock[stream] = position


def _told(access: Access) -> tuple[str, str, Site]:
    return access.verb, str(access.stream), access.site()
