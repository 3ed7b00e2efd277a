"""A task that not all ranks answered: a report of each rank, and which of them failed first."""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass, field
from itertools import combinations

from distparity.core.collective_call import Call, Whereabouts
from distparity.core.redact import DOTS

__all__ = [
    "Failure",
    "Fate",
    "Report",
    "blame",
    "fatal_error",
    "last_words",
    "without_stack_reporter",
    "written_in_dying",
]

#: The most accounts in a message, and the most characters of one; the detail has them in full.
_ACCOUNTS = 4
_LONGEST = 240
_WHAT = re.compile(r"^\s*what\(\):\s*(.+)$", re.MULTILINE)
_FRAME = re.compile(r'^  File "([^"]+)", line \d+, in (\S+)', re.MULTILINE)
#: How faulthandler names a signal that ends a process.
_FATAL = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
#: Words in a rank's error that mean that the rank at the other end is gone.
_ECHOES = ("closed by peer", "connection reset", "connection refused", "gloo/transport")
#: Threads and objects have other addresses in every rank.
_ADDRESS = re.compile(r"0x[0-9a-f]+")
#: gloo's words for two ranks whose messages differ in size.
_MISMATCH = "op.preamble.length"
#: Seconds. A rank's death is known only when the kernel has cleaned up after it. Its peers notice
#: earlier, so their exceptions arrive first although the death came first.
_DEATH_LAG = 0.5


class Fate(enum.Enum):
    """How a rank's part in a task ended."""

    ANSWERED = "answered"
    RAISED = "raised"
    DIED = "died"
    SILENT = "silent"


@dataclass
class Report:
    """What happened to one rank, and where it was when last seen."""

    rank: int
    fate: Fate
    #: "raised ValueError: ...", "exited with code 3", "killed by SIGKILL" ...
    what: str = ""
    #: None if it has answered, or nothing is known.
    where: Whereabouts | None = None
    text: str = ""
    stack: str = ""
    native: str = ""
    output: str = ""
    #: When the controller knew, in seconds of the monotonic clock.
    when: float = 0.0
    pid: int = 0
    #: The name of its machine; empty if all ranks are on this one.
    node: str = ""
    #: Whose code raised the exception (:mod:`distparity.core.refusal`).
    origin: str = "other"

    def told(self, before: dict[str, int]) -> str:
        """Everything known; a text that a rank ``before`` had, by rank, is not told again."""
        parts = [f"rank {self.rank} (pid {self.pid}{self.on}): {self.account}"]
        titles = ("traceback", "stacks", "native stacks", "output")
        texts = (self.text, self.stack, self.native, self.output)
        for title, text in zip(titles, map(str.strip, texts), strict=True):
            first = before.setdefault(_ADDRESS.sub("0x", text), self.rank)
            if text and first != self.rank:
                parts.append(f"  the {title} of rank {first}")
            elif text:
                parts += [f"  -- {title} of rank {self.rank}"] * (title != "traceback")
                parts += [f"  {line}" for line in text.splitlines()]
        return "\n".join(parts)

    @property
    def on(self) -> str:
        """Its machine, in words that go on; empty if that is the only one."""
        return f" on {self.node}" if self.node else ""

    @property
    def account(self) -> str:
        """What happened to the rank, and where it was, in one line."""
        what = _headline(self.what)
        if len(what) > _LONGEST:
            what = f"{what[:_LONGEST]}{DOTS}"
        return ", ".join(filter(None, [what, str(self.where or "")]))

    @property
    def end(self) -> str:
        """What it did, and the code that did it: of an exception where it was raised."""
        if self.fate is not Fate.RAISED:
            return self.account
        frames = _FRAME.findall(self.text)
        path, function = frames[-1] if frames else ("", "")
        where = f", {os.path.basename(path)} in {function}" if frames else ""  # noqa: PTH119
        return f"{_headline(self.what)}{where}"

    @property
    def call(self) -> Call | None:
        """The collective that the rank was in."""
        return None if self.where is None else self.where.call

    @property
    def brief(self) -> str:
        """:attr:`account`, shortened if the error only says that another rank is gone."""
        return f"lost a peer, {self.where}" if self.is_echo else self.account

    @property
    def is_echo(self) -> bool:
        """True for an error that only says that another rank is gone."""
        text = self.what.lower()
        return self.fate is Fate.RAISED and any(sign in text for sign in _ECHOES)


def _headline(what: str) -> str:
    """The first line; for an error that quotes a traceback, also the last line of that."""
    first, _, rest = what.partition("\n")
    if "Traceback (most recent call last)" not in rest:
        return first
    return f"{first}: {rest.strip().splitlines()[-1].strip()}"


@dataclass
class Failure:
    """A task that not all ranks answered: ``kind`` is "raised", "crash" or "timeout".

    ``after`` is the time from the start of the task until the failure was known, in seconds.
    """

    kind: str
    message: str
    ranks: list[Report] = field(default_factory=list)
    after: float = 0.0
    #: The name of each rank's node and its device index there; empty on one machine.
    places: tuple[tuple[str, int], ...] = ()

    @property
    def detail(self) -> str:
        before: dict[str, int] = {}
        return "\n".join([self.message, "", *(report.told(before) for report in self.ranks)])

    @property
    def accounts(self) -> list[str]:
        """What the ranks did that are to blame, each account once, whichever rank was first."""
        culprits = [one for one in self.ranks if one.fate in (Fate.RAISED, Fate.DIED)]
        loud = [one for one in culprits if not one.is_echo] or culprits
        return sorted({one.end for one in loud or self.ranks})

    @property
    def origin(self) -> str:
        """Whose code raised the ranks' exceptions, if it is the same for all; else "other"."""
        raised = [report for report in self.ranks if report.fate is Fate.RAISED]
        whose = {report.origin for report in raised if not report.is_echo} or {
            report.origin for report in raised
        }
        return whose.pop() if len(whose) == 1 else "other"


def without_stack_reporter(stacks: str) -> str:
    """Remove the thread of our stack reporter from faulthandler's stacks."""
    threads = stacks.split("\n\n")
    return "\n\n".join(thread for thread in threads if "/worker/stack_reporter.py" not in thread)


def last_words(output: str) -> str:
    """The C++ exception that ended a process, from its output; empty if there is none."""
    found = _WHAT.findall(output)
    return found[-1].strip() if found else ""


def written_in_dying(stacks: str) -> str:
    """Of a process's stacks, those that it wrote as it died; empty if it wrote none then."""
    found = list(_FATAL.finditer(stacks))
    return stacks[found[-1].start() :] if found else ""


def fatal_error(stacks: str) -> str:
    """The signal that a process died of, as faulthandler names it; empty if it names none."""
    found = _FATAL.search(stacks)
    return found[1] if found else ""


def blame(reports: list[Report], *, limit: float | None) -> tuple[str, str]:
    """The kind of failure, and one line: which rank failed first and how, and where the others were.

    ``limit`` is the time limit that passed without an answer, in seconds; None if the task failed
    in another way first.
    """
    culprits = [report for report in reports if report.fate in (Fate.RAISED, Fate.DIED)]
    if not culprits or limit is not None:
        return "timeout", f"no answer within {limit or 0:g} s: {_standstill(reports)}"
    # A rank that lost its peer raises "connection closed by peer": an echo, not the cause.
    loud = [report for report in culprits if not report.is_echo] or culprits
    first = min(loud, key=_order)
    others = [r for r in reports if r is not first and r.account != first.account]
    alike = [r.rank for r in reports if r is not first and r.account == first.account]
    told = [f"rank {first.rank}{first.on} {first.account}"]
    if alike:
        told.append(f"the same on {_ranks(alike)}")
    if others:
        step = "out of step: " if _out_of_step(reports) else ""
        told.append(step + _list(others))
    return "crash" if first.fate is Fate.DIED else "raised", "; ".join(told)


def _order(report: Report) -> float:
    return report.when - (_DEATH_LAG if report.fate is Fate.DIED else 0.0)


def _out_of_step(reports: list[Report]) -> bool:
    """True when ranks are in different collectives."""
    calls = [report.call for report in reports if report.call is not None]
    differ = any(one.differs(other) for one, other in combinations(calls, 2))
    return differ or any(_MISMATCH in report.what for report in reports)


def _standstill(reports: list[Report]) -> str:
    """Why nothing moves: a rank is in no collective, or ranks are in different ones."""
    silent = [report for report in reports if report.fate is Fate.SILENT]
    elsewhere = [report for report in silent if not report.call]
    waiting = [report for report in reports if report not in elsewhere]
    if elsewhere:
        return "; ".join(filter(None, [f"hang: {_list(elsewhere)}", _list(waiting)]))
    if len(silent) < len(reports) or _out_of_step(silent):
        return f"out of step: {_list(reports)}"
    return f"hang: {_list(reports)}"


def _list(reports: list[Report]) -> str:
    """The accounts, each with the ranks that share it."""
    ranks: dict[str, list[int]] = {}
    for report in reports:
        ranks.setdefault(report.brief, []).append(report.rank)
    told = [f"{_ranks(numbers)} {account}" for account, numbers in ranks.items()]
    more = len(told) - _ACCOUNTS
    return "; ".join([*told[:_ACCOUNTS], f"and {more} more"] if more > 0 else told)


def _ranks(numbers: list[int]) -> str:
    return f"rank{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
