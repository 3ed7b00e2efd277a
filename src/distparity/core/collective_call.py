"""Which collective a rank is in, from the report of its stack reporter or from its stacks."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["BACKWARD", "COLLECTIVES", "STOPPED", "Call", "Whereabouts", "describe", "locate"]

#: Functions of torch.distributed in which a rank waits for others.
COLLECTIVES = frozenset(
    {
        "all_gather",
        "all_gather_coalesced",
        "all_gather_into_tensor",
        "all_gather_object",
        "all_gather_single",
        "all_reduce",
        "all_reduce_coalesced",
        "all_to_all",
        "all_to_all_single",
        "barrier",
        "batch_isend_irecv",
        "broadcast",
        "broadcast_object_list",
        "gather",
        "gather_object",
        "irecv",
        "isend",
        "monitored_barrier",
        "new_group",
        "recv",
        "reduce",
        "reduce_scatter",
        "reduce_scatter_single",
        "reduce_scatter_tensor",
        "scatter",
        "scatter_object_list",
        "send",
    }
)
#: In place of a collective's name: one that C++ began in the backward pass, not known which.
BACKWARD = "a collective of backward,"
#: What C++ waits for and nobody names: asynchronous and functional collectives, without a recorder.
UNNAMED = "an unnamed collective,"
#: The state of a rank that waits for nobody, wherever it is.
STOPPED = "stopped"
_FRAME = re.compile(r'^\s*File "(.*)", line (\d+) in (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Call:
    """A collective, as far as it is known; ``number`` counts those of its group in this task."""

    name: str
    number: int | None = None
    #: Shape and dtype of its first tensor: "[8] float32".
    what: str = ""
    #: Empty for the default group.
    group: str = ""
    #: False if the number is only that of the last collective that was begun.
    sure: bool = True

    def __str__(self) -> str:
        number = "" if self.number is None else f" #{self.number}"
        what = f" of {self.what}" if self.what else ""
        group = f" in the group {self.group}" if self.group else ""
        return f"{self.name}{number}{what}{group}"

    def differs(self, other: Call) -> bool:
        """True when the two cannot be the same collective, seen from two ranks."""
        if not {BACKWARD, UNNAMED}.isdisjoint((self.name, other.name)):
            return False
        if self.name != other.name or self.group != other.group:
            return True
        numbered = self.sure and other.sure and None not in (self.number, other.number)
        if numbered and self.number != other.number:
            return True
        return bool(self.what and other.what) and self.what != other.what


@dataclass(frozen=True)
class Whereabouts:
    """Where a rank is: in a collective or in none, and at which line.

    ``state`` replaces that if there is something else to say, for example that it is stopped.
    """

    call: Call | None = None
    at: str = ""
    #: The number of collectives that it has begun in this task; None if unknown.
    calls: int | None = None
    #: Whether it may be waiting, in C++, for a collective of unknown name.
    waits: bool = False
    #: The last collective that it began and that has not ended, whether it waits for it or not.
    open: Call | None = None
    state: str = ""

    def __str__(self) -> str:
        if self.state:
            return f"{self.state}, at {self.at}" if self.at else self.state
        if self.call is not None:
            return f"in {self.call}"
        after = "" if self.calls is None else f", after {self.calls} of them"
        return f"in no collective{after}, at {self.at}" if self.at else ""

    def named(self, collective: str, *, waits: bool, message: str = "") -> Whereabouts:
        """Add the collective that the native stacks show.

        ``collective`` is the one that gloo is in, "" for none. ``waits`` says whether the main thread
        waits for one, and ``message`` is "recv" or "send" if it waits for a message.
        """
        vague = self.call is None or self.call.name == BACKWARD
        if self.state == STOPPED or not vague or not (self.waits or waits):
            return self
        if self.state and not waits:
            return self
        number = self.calls if self.call is None else self.call.number
        found = Call(collective, number, sure=False) if collective else self.call
        call = Call(message, number, sure=False) if message else self.open or found
        if call is None and waits:
            call = Call(UNNAMED, number, sure=False)
        # A rank that waits for a collective is in it, even if its stack reporter could not say so.
        return self if call is None else replace(self, call=call, state="")


def describe(seen: dict[str, Any]) -> Whereabouts:
    """Read the report of a rank's stack reporter.

    Never raises, whatever ``seen`` contains, because a process in trouble wrote it.
    """
    calls = seen.get("calls")
    calls = calls if isinstance(calls, int) else None
    call, last = _call(seen.get("call"), calls), _call(seen.get("open"), calls)
    waits = bool(seen.get("waits")) or (call is not None and call.name == BACKWARD)
    return Whereabouts(call, str(seen.get("at", "")), calls, waits, last)


def _call(seen: Any, calls: int | None) -> Call | None:
    if not isinstance(seen, dict):
        return None
    number, shapes = seen.get("number", calls), seen.get("shapes")
    return Call(
        str(seen.get("name", "?")),
        number if isinstance(number, int) else None,
        f"{shapes[0]} {seen.get('dtype', '')}" if isinstance(shapes, list) and shapes else "",
        str(seen.get("group", "")),
    )


def locate(stacks: str) -> Whereabouts | None:
    """Where a rank is, from faulthandler's stacks alone; None if they have no frames."""
    frames: list[tuple[str, str, str]] = []
    fatal = "Fatal Python error" in stacks
    for thread in stacks.split("\n\n"):
        found = _FRAME.findall(thread)
        # The main thread of a living process; for a dead one, the thread in which it died.
        if found and (thread.startswith("Current thread") if fatal else found[-1][2] == "<module>"):
            frames = [frame for frame in found if not frame[0].endswith("/threading.py")]
    if not frames:
        return None
    path, line, function = frames[0]
    names = [name for path, _, name in frames if _is_collective(path, name)]
    at = f"{path.rpartition('/')[2]}:{line} in {function}"
    return Whereabouts(Call(names[-1]) if names else None, at)


def _is_collective(path: str, name: str) -> bool:
    return name in COLLECTIVES and path.endswith("distributed_c10d.py")
