"""When the work that was put on streams is done: the queues, the events, and the modes.

A stream is a queue of items. An item is done when somebody must have it, and with it no more than
it needs: what lies before it on its stream, and what these wait for. A mode says what is done
besides, and when. All of it is plain Python and knows nothing of torch.

================ =================================================================================
mode             what is done before somebody must have it
================ =================================================================================
``eager``        everything, at once
``late``         nothing
``side``         what is put on other streams than the default one
``mix:SEED``     each stream is either eager or late, by a coin
``random:SEED``  now and then some of a stream
================ =================================================================================
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["DEFAULT", "MODES", "Mark", "Mode", "Scheduler", "Stream"]

MODES = ("eager", "late", "side", "mix", "random")
#: The default stream's number, on every device.
DEFAULT = 0
#: In mode ``random``: how often putting work on a stream has some done, and how much at most.
CHANCE, MOST = 0.25, 6
#: Who asks whether something is done hears no so many times before it is done for that reason.
PATIENCE = 3


@dataclass(frozen=True)
class Mode:
    """What ``ASIM_MODE`` says: a name, and a seed where chance is in it."""

    name: str
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Mode:
        """Read ``late`` or ``random:3``; raises ``ValueError`` on anything else."""
        name, colon, seed = text.partition(":")
        has_seed = name in ("mix", "random")
        if name not in MODES or (colon and not has_seed) or (colon and not seed.isdecimal()):
            known = ", ".join(f"{one}:SEED" if one in ("mix", "random") else one for one in MODES)
            raise ValueError(f"{text!r} is no mode of asim; there are {known}")
        return cls(name, int(seed or 0))

    def __str__(self) -> str:
        return f"{self.name}:{self.seed}" if self.name in ("mix", "random") else self.name

    def is_eager(self, number: int) -> bool:
        """Whether what is put on the stream of this number is done at once."""
        if self.name == "mix":
            return random.Random(f"{self.seed}/{number}").random() < 0.5  # noqa: S311  no secret
        return self.name == "eager" or (self.name == "side" and number != DEFAULT)


@dataclass(eq=False)
class Stream:
    """A queue, and how far it is: the items that were put on it, and those that are done."""

    device: int
    number: int
    priority: int = 0
    eager: bool = True
    queue: deque[_Item] = field(default_factory=deque)
    issued: int = 0
    done: int = 0
    #: An item is being done, and has others done meanwhile.
    busy: bool = False
    asked: int = 0

    def __str__(self) -> str:
        name = "default stream" if self.number == DEFAULT else f"stream {self.number}"
        return name if self.device == 0 else f"{name} of device {self.device}"


@dataclass(frozen=True)
class Mark:
    """A place on a stream: what lies up to it."""

    stream: Stream
    position: int

    def is_done(self) -> bool:
        return self.stream.done >= self.position


class _Item:
    __slots__ = ("act", "after")

    def __init__(self, act: Callable[[], object] | None, after: Mark | None) -> None:
        self.act = act
        self.after = after


class Scheduler:
    """All streams of a process, on all its devices."""

    def __init__(self, mode: Mode) -> None:
        self.streams: dict[tuple[int, int], Stream] = {}
        self._next = 1
        #: How often somebody has put, wanted or asked something.
        self.calls = 0
        #: What items raised that nobody had asked for.
        self._raised: list[Exception] = []
        self.begin(mode)

    def begin(self, mode: Mode) -> None:
        """Begin in a mode: chance begins anew, and streams have the mode's temper."""
        self.mode = mode
        self._chance = random.Random(f"{mode.seed}")  # noqa: S311  no secret
        for stream in self.streams.values():
            stream.eager = mode.is_eager(stream.number)

    # -- streams -------------------------------------------------------------------------------

    def stream(self, device: int, number: int) -> Stream:
        found = self.streams.get((device, number))
        if found is None:
            found = Stream(device, number, eager=self.mode.is_eager(number))
            self.streams[device, number] = found
        return found

    def new_stream(self, device: int, priority: int = 0) -> Stream:
        made = self.stream(device, self._next)
        made.priority = priority
        self._next += 1
        return made

    # -- issue ---------------------------------------------------------------------------------

    def put(
        self, stream: Stream, act: Callable[[], object] | None, after: Mark | None = None
    ) -> Mark:
        """Put something to do on a stream, or a wait for a mark of another; returns its mark."""
        self.calls += 1
        stream.issued += 1
        if stream.eager and not stream.queue and not stream.busy and (not after or after.is_done()):
            # What is done at once needs no queue.
            self._do(stream, act)
            return Mark(stream, stream.issued)
        stream.queue.append(_Item(act, after))
        mark = Mark(stream, stream.issued)
        if stream.eager:
            self.reach(mark)
        elif self.mode.name == "random":
            self._perhaps()
        return mark

    def _perhaps(self) -> None:
        if self._chance.random() < CHANCE:
            waiting = [stream for stream in self.streams.values() if stream.queue]
            if waiting:
                stream = self._chance.choice(waiting)
                to = min(stream.done + self._chance.randint(1, MOST), stream.issued)
                self.reach(Mark(stream, to))

    # -- progress ------------------------------------------------------------------------------

    def reach(self, mark: Mark) -> None:
        """Have everything done that a mark needs, then raise what an item raised, the first of them.

        Nothing stays behind: who put an item on a queue may give up its memory when this raises.
        """
        self.calls += 1
        failures, self._raised = self._raised, []
        wanted = [mark]
        while wanted:
            mark = wanted[-1]
            stream = mark.stream
            if stream.done >= mark.position or stream.busy:
                wanted.pop()
                continue
            after = stream.queue[0].after
            if after is not None and not after.is_done() and not after.stream.busy:
                wanted.append(after)
                continue
            try:
                self._one(stream)
            except Exception as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _one(self, stream: Stream) -> None:
        self._do(stream, stream.queue.popleft().act)

    @staticmethod
    def _do(stream: Stream, act: Callable[[], object] | None) -> None:
        stream.busy = True
        try:
            if act is not None:
                act()
        finally:
            # What failed is over as well: whoever had it done has the exception.
            stream.busy = False
            stream.done += 1

    def nudge(self) -> bool:
        """Do one item that could be done now; False where there is none.

        Ranks whose programs differ can wait for one another in another order than their queues
        have. Devices get on with all their streams, so that this is no error: who is stuck has
        others do something.
        """
        for stream in self.streams.values():
            if stream.queue and not stream.busy:
                after = stream.queue[0].after
                if after is None or after.is_done():
                    self._one(stream)
                    return True
        return False

    def get_on(self) -> None:
        """Have everything done unasked; who next has something done hears what an item raised."""
        try:
            self.drain()
        except Exception as failure:
            self._raised.append(failure)

    def drain(self, device: int | None = None) -> None:
        """Have everything done, on one device or on all; then raise what an item raised."""
        failures: list[Exception] = []
        for stream in list(self.streams.values()):
            if device in (None, stream.device):
                try:
                    self.reach(Mark(stream, stream.issued))
                except Exception as failure:
                    failures.append(failure)
        if failures:
            raise failures[0]

    def ask(self, mark: Mark) -> bool:
        """Whether it is done; who asks again and again hears no, and then yes."""
        self.calls += 1
        if mark.is_done():
            return True
        mark.stream.asked += 1
        if mark.stream.asked % (PATIENCE + 1) == 0:
            self.reach(mark)
        return mark.is_done()

    def outstanding(self) -> list[Mark]:
        """The ends of all queues that have something to do."""
        return [Mark(one, one.issued) for one in self.streams.values() if one.queue or one.busy]
