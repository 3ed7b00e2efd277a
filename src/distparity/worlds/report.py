"""What became of a task that not all ranks answered: each rank's account, and who is to blame."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BACKWARD",
    "COLLECTIVES",
    "Failure",
    "Fate",
    "Report",
    "blame",
    "describe",
    "last_words",
    "locate",
    "without_witness",
]

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
#: How many different accounts a message has, and how long one is; the detail has all.
_ACCOUNTS = 4
_LONGEST = 240
_FRAME = re.compile(r'^\s*File "(.*)", line (\d+) in (\S+)$', re.MULTILINE)
#: In place of a collective's name: one that C++ began in the backward pass, not known which.
BACKWARD = "a collective of backward,"
_WHAT = re.compile(r"^\s*what\(\):\s*(.+)$", re.MULTILINE)
#: What a rank's error says when the rank at the other end is gone.
_ECHOES = ("closed by peer", "connection reset", "connection refused", "gloo/transport")
#: What gloo says of two ranks whose messages differ in size.
_MISMATCH = "op.preamble.length"
#: A rank's death is known only when the kernel has cleaned up after it; its peers notice a little
#: sooner, and what they then raise is not what happened first.
_DEATH_LAG = 0.5


class Fate(enum.Enum):
    ANSWERED = "answered"
    RAISED = "raised"
    DIED = "died"
    SILENT = "silent"


@dataclass
class Report:
    """What became of one rank, and where it was when it was last seen."""

    rank: int
    fate: Fate
    #: "raised ValueError: ...", "exited with code 3", "killed by SIGKILL" ...
    what: str = ""
    #: "in all_reduce #3 of [8] float32", "stopped, in no collective ..."
    where: str = ""
    #: The collective alone, "all_reduce #3 of [8] float32"; empty when it was in none.
    call: str = ""
    text: str = ""
    stack: str = ""
    output: str = ""
    #: When it was known, in seconds of the monotonic clock.
    when: float = 0.0
    pid: int = 0

    def __str__(self) -> str:
        parts = [f"rank {self.rank} (pid {self.pid}): {self.account}"]
        parts += [f"  {line}" for line in self.text.splitlines()]
        for title, text in (("stacks", self.stack), ("output", self.output)):
            if text.strip():
                parts.append(f"  -- {title} of rank {self.rank}")
                parts += [f"  {line}" for line in text.strip().splitlines()]
        return "\n".join(parts)

    @property
    def account(self) -> str:
        """What it did, and where it was, in one line."""
        what = _headline(self.what)
        if len(what) > _LONGEST:
            what = f"{what[:_LONGEST]}..."
        return ", ".join(filter(None, [what, self.where]))

    @property
    def brief(self) -> str:
        """:attr:`account` beside another rank's: what is only an echo of that needs no words."""
        return f"lost a peer, {self.where}" if self.is_echo else self.account

    @property
    def is_echo(self) -> bool:
        """True for an error that only says that another rank is gone."""
        text = self.what.lower()
        return self.fate is Fate.RAISED and any(sign in text for sign in _ECHOES)


def _headline(what: str) -> str:
    """The first line; where it is of an error that carries another's traceback, that one's last too."""
    first, _, rest = what.partition("\n")
    if "Traceback (most recent call last)" not in rest:
        return first
    return f"{first}: {rest.strip().splitlines()[-1].strip()}"


@dataclass
class Failure:
    """A task that not all ranks answered: ``kind`` is "raised", "crash" or "timeout".

    ``after`` is how many seconds after the task's beginning that was known.
    """

    kind: str
    message: str
    ranks: list[Report] = field(default_factory=list)
    after: float = 0.0

    @property
    def detail(self) -> str:
        return "\n".join([self.message, "", *map(str, self.ranks)])


def describe(seen: dict[str, Any]) -> tuple[str, str]:
    """What a rank's witness saw: where the rank is, and the collective alone.

    Raises nothing, whatever ``seen`` holds: it was written by a process in trouble.
    """
    call = seen.get("call")
    calls = seen.get("calls")
    if not isinstance(call, dict):
        after = f", after {calls} of them" if "calls" in seen else ""
        return f"in no collective{after}, at {seen['at']}" if "at" in seen else "", ""
    shapes = call.get("shapes")
    what = f" of {shapes[0]} {call.get('dtype', '')}" if isinstance(shapes, list) and shapes else ""
    group = f" in the group {call['group']}" if call.get("group") else ""
    number = call.get("number", seen.get("calls"))
    name = f"{call.get('name', '?')}{'' if number is None else f' #{number}'}{what}{group}"
    return f"in {name}", name


def locate(stacks: str) -> dict[str, Any]:
    """What a witness would have seen, as far as faulthandler's account of a process tells it."""
    frames: list[tuple[str, str, str]] = []
    fatal = "Fatal Python error" in stacks
    for thread in stacks.split("\n\n"):
        found = _FRAME.findall(thread)
        # Of a living process the main thread's, of another that of the thread in which it died.
        if found and (thread.startswith("Current thread") if fatal else found[-1][2] == "<module>"):
            frames = [frame for frame in found if not frame[0].endswith("/threading.py")]
    if not frames:
        return {}
    path, line, function = frames[0]
    names = [name for path, _, name in frames if _is_collective(path, name)]
    return {
        "at": f"{path.rpartition('/')[2]}:{line} in {function}",
        "call": {"name": names[-1]} if names else None,
    }


def without_witness(stacks: str) -> str:
    """faulthandler's account of a process without the thread that is ours."""
    threads = stacks.split("\n\n")
    return "\n\n".join(thread for thread in threads if "/worlds/witness.py" not in thread)


def _is_collective(path: str, name: str) -> bool:
    return name in COLLECTIVES and path.endswith("distributed_c10d.py")


def last_words(output: str) -> str:
    """The C++ exception that ended a process, from its output; empty when there is none."""
    found = _WHAT.findall(output)
    return found[-1].strip() if found else ""


def blame(reports: list[Report], *, limit: float | None) -> tuple[str, str]:
    """The kind of failure, and one line: which rank did what first, and where the others were.

    ``limit`` is the number of seconds that have passed without an answer, None when something
    else came first.
    """
    culprits = [report for report in reports if report.fate in (Fate.RAISED, Fate.DIED)]
    if not culprits or limit is not None:
        return "timeout", f"no answer within {limit or 0:g} s: {_standstill(reports)}"
    # A rank whose peer is gone says so ("connection closed by peer"): that is an echo.
    loud = [report for report in culprits if not report.is_echo] or culprits
    first = min(loud, key=_order)
    others = [r for r in reports if r is not first and r.account != first.account]
    alike = [r.rank for r in reports if r is not first and r.account == first.account]
    told = [f"rank {first.rank} {first.account}"]
    if alike:
        told.append(f"{_ranks(alike)} likewise")
    if others:
        step = "out of step: " if _out_of_step(reports) else ""
        told.append(step + _list(others))
    return "crash" if first.fate is Fate.DIED else "raised", "; ".join(told)


def _order(report: Report) -> float:
    return report.when - (_DEATH_LAG if report.fate is Fate.DIED else 0.0)


def _out_of_step(reports: list[Report]) -> bool:
    """True when ranks are in different collectives: by name and, where both tell, all the rest."""
    # Which one of backward's it is, is not known: it may well be the same.
    calls = {r.call for r in reports if r.call and not r.call.startswith(BACKWARD)}
    names = {call.partition(" ")[0] for call in calls}
    told = {call for call in calls if " " in call}
    return max(len(names), len(told)) > 1 or any(_MISMATCH in report.what for report in reports)


def _standstill(reports: list[Report]) -> str:
    """Why nothing moves: a rank that is in no collective, or ranks that are in different ones."""
    silent = [report for report in reports if report.fate is Fate.SILENT]
    elsewhere = [report for report in silent if not report.call]
    waiting = [report for report in reports if report not in elsewhere]
    if elsewhere:
        return "; ".join(filter(None, [f"hang: {_list(elsewhere)}", _list(waiting)]))
    if len(silent) < len(reports) or _out_of_step(silent):
        return f"out of step: {_list(reports)}"
    return f"hang: {_list(reports)}"


def _list(reports: list[Report]) -> str:
    """Accounts, each with the ranks that have it."""
    ranks: dict[str, list[int]] = {}
    for report in reports:
        ranks.setdefault(report.brief, []).append(report.rank)
    told = [f"{_ranks(numbers)} {account}" for account, numbers in ranks.items()]
    more = len(told) - _ACCOUNTS
    return "; ".join([*told[:_ACCOUNTS], f"and {more} more"] if more > 0 else told)


def _ranks(numbers: list[int]) -> str:
    return f"rank{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
