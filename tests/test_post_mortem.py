"""Ranks that answer a post-mortem late, as on a busy machine, with a clock of the test's."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from typing import Any

import pytest

from distparity.worlds import post_mortem
from distparity.worlds.failure import Fate
from distparity.worlds.post_mortem import PostMortem

PATIENCE = 0.4
STACK = 'Thread 0x1 (most recent call first):\n  File "user.py", line 3 in train\n'


@dataclass
class Clock:
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Machine:
    """One rank, which writes its stacks ``late`` seconds after it was asked."""

    clock: Clock
    late: float
    busy: bool
    asked: float | None = None
    rank: Any = None
    sent: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rank = types.SimpleNamespace(
            number=0, pid=7, node="", lost="", settled=False, dying=None, exit=None, error=None, answer=None,
            fate=Fate.SILENT, when=0.0, stacks=self, where=types.SimpleNamespace(read=self.where),
            output=types.SimpleNamespace(tail=lambda most: ""),
        )  # fmt: skip

    def signal(self, pids: list[int], number: int, *, main: bool = False) -> None:
        self.sent.append(number)
        if self.asked is None:
            self.asked = self.clock.now

    def state(self, pid: int) -> str:
        return "sleeping"

    def wants_to_run(self, pid: int, *, main: bool = True) -> bool:
        return False

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
    clock = Clock()
    machine = Machine(clock, late, busy)
    monkeypatch.setattr(post_mortem, "time", types.SimpleNamespace(monotonic=clock.monotonic))
    held = PostMortem([machine.rank], machine, PATIENCE, began=False)  # type: ignore[arg-type]
    while (again := held.step()) is not None:
        clock.now = max(again, clock.now)

    assert told == ("user.py" in held.reports[0].stack)
    assert where in str(held.reports[0].where)
    # A bound, whatever a rank does.
    assert clock.now < PATIENCE + 4 * post_mortem.BUSY_AT_MOST
