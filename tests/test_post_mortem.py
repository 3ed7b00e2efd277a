"""Ranks that answer a post-mortem late, as on a busy machine, with a clock of the test's."""

from __future__ import annotations

import math
import signal
import types
from dataclasses import dataclass, field
from typing import Any

import pytest

from distparity.core import processes
from distparity.worlds import post_mortem
from distparity.worlds.failure import Fate
from distparity.worlds.post_mortem import PostMortem

PATIENCE = 0.4
NATIVE = """SIGABRT(6), PID: 7, Thread 7:
frame #0: gloo::broadcast(gloo::BroadcastOptions&) + 0x12 (0x7f0a in /lib/libtorch_cpu.so)
frame #1: c10d::Work::wait(std::chrono::duration<long>) + 0x12 (0x7f0b in /lib/libtorch_cpu.so)
"""
#: Written for a signal of a batch system, a second before a rank died; and what it wrote as it died.
EARLIER = 'Current thread 0x1 (most recent call first):\n  File "user.py", line 1 in <module>\n\n'
OTHER = '\nThread 0x2 (most recent call first):\n  File "other.py", line 5 in wait\n'
FATAL = """Fatal Python error: Segmentation fault

Current thread 0x1 (most recent call first):
  File "user.py", line 9 in <module>
"""
STACK = 'Thread 0x1 (most recent call first):\n  File "user.py", line 3 in train\n'


@dataclass
class Clock:
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Machine:
    """One rank, which writes its stacks ``late`` seconds after it was asked.

    Once it is told to abort, it wants to run, and its native stacks come after ``native`` seconds.
    """

    clock: Clock
    late: float
    busy: bool
    native: float = math.inf
    asked: float | None = None
    aborted: float | None = None
    rank: Any = None
    sent: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rank = types.SimpleNamespace(
            number=0, pid=7, node="", lost="", settled=False, dying=None, exit=None, error=None, answer=None,
            fate=Fate.SILENT, when=0.0, stacks=self, where=types.SimpleNamespace(read=self.where),
            output=types.SimpleNamespace(tail=lambda most: NATIVE if self.told(self.native) else ""),
        )  # fmt: skip

    def signal(self, pids: list[int], number: int, *, main: bool = False) -> None:
        self.sent.append(number)
        if self.asked is None:
            self.asked = self.clock.now
        if number == signal.SIGABRT:
            self.aborted = self.clock.now

    def state(self, pid: int) -> str:
        return "sleeping"

    def wants_to_run(self, pid: int, *, main: bool = True) -> bool:
        return self.aborted is not None and self.native < math.inf and not self.told(self.native)

    def told(self, late: float) -> bool:
        return self.aborted is not None and self.clock.now >= self.aborted + late

    def is_busy(self) -> bool:
        return self.busy

    @property
    def wrote(self) -> bool:
        return self.asked is not None and self.clock.now >= self.asked + self.late

    def size(self) -> int:
        return len(STACK) if self.wrote else 0

    def tail(self, since: int) -> str:
        return STACK[since:] if self.wrote else ""

    def where(self, most: int) -> bytes:
        return b'{"at": "user.py:3 in train"}\n' if self.wrote else b""


def questioned(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, crowd: float, *, began: bool
) -> Any:
    """A post-mortem of the machine's rank that has ended, while ``crowd`` threads want each CPU."""
    clock = machine.clock
    monkeypatch.setattr(post_mortem, "time", types.SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(processes, "crowd", lambda: crowd)
    held = PostMortem([machine.rank], machine, PATIENCE, began=began)  # type: ignore[arg-type]
    while (again := held.step()) is not None:
        clock.now = max(again, clock.now)
    return held


@pytest.mark.parametrize(
    ("late", "busy", "told", "where"),
    [
        pytest.param(0.0, False, True, "at user.py:3 in train", id="at-once"),
        pytest.param(3.0, True, True, "at user.py:3 in train", id="held-up"),
        pytest.param(0.6, False, True, "no response", id="after-it-was-asked-to-end"),
        pytest.param(99.0, True, False, "no response", id="held-up-for-good"),
        pytest.param(99.0, False, False, "no response", id="never"),
    ],
)
def test_a_late_answer(
    monkeypatch: pytest.MonkeyPatch, late: float, busy: bool, told: bool, where: str
) -> None:
    held = questioned(monkeypatch, Machine(Clock(), late, busy), 1.0, began=False)

    assert told == ("user.py" in held.reports[0].stack)
    assert where in str(held.reports[0].where)
    # A bound, whatever a rank does.
    assert held.launcher.clock.now < PATIENCE + 4 * post_mortem.BUSY


@pytest.mark.parametrize(
    ("native", "crowd", "known"),
    [
        pytest.param(0.0, 1.0, True, id="at once"),
        pytest.param(4.0, 1.0, True, id="late"),
        pytest.param(20.0, 1.0, False, id="too late for an idle machine"),
        pytest.param(20.0, 8.0, True, id="late as eight want each CPU"),
        pytest.param(1e9, 1e9, False, id="never"),
    ],
)
def test_native_stacks_that_come_late_name_the_collective(
    monkeypatch: pytest.MonkeyPatch, native: float, crowd: float, known: bool
) -> None:
    held = questioned(monkeypatch, Machine(Clock(), 0.0, False, native), crowd, began=True)

    assert ("broadcast" in str(held.reports[0].where)) is known
    assert held.launcher.clock.now < PATIENCE + 2 * post_mortem.BUSY_AT_MOST


@pytest.mark.parametrize(
    ("stacks", "where"),
    [
        pytest.param("", "None", id="none"),
        pytest.param(EARLIER, "None", id="for another signal"),
        pytest.param(EARLIER + FATAL, "at user.py:9 in <module>", id="for both"),
        pytest.param(FATAL + 300 * OTHER, "at user.py:9 in <module>", id="with many threads"),
    ],
)
def test_a_dead_rank_was_where_it_wrote_its_last_stacks(
    monkeypatch: pytest.MonkeyPatch, stacks: str, where: str
) -> None:
    machine = Machine(Clock(), 0.0, False)
    machine.rank.__dict__.update(
        settled=True,
        fate=Fate.DIED,
        exit=9,
        helped=False,
        memory=False,
        stacks=types.SimpleNamespace(tail=lambda size=8192, since=0: stacks[since:][-size:]),
    )

    held = questioned(monkeypatch, machine, 1.0, began=True)

    assert held.reports[0].what == "killed by SIGKILL"
    assert str(held.reports[0].where).endswith(where)


def test_ranks_are_stopped_before_one_is_told_to_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that died would free the others from what they wait in, before they have their signal."""
    held = questioned(monkeypatch, Machine(Clock(), 0.0, False), 1.0, began=True)

    assert held.launcher.sent[-3:] == [signal.SIGSTOP, signal.SIGABRT, signal.SIGCONT]
