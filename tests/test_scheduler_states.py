"""Whatever events come, in whatever order, every task ends, and as it would have ended alone."""

from __future__ import annotations

import contextlib
import os
from unittest import mock

from fake_ranks import Fakes, fakes, outcome_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from distparity.core import processes
from distparity.worlds.launcher import StartError

#: What becomes of a task that nothing disturbs.
ENDS = {
    "ok": "ok",
    "leave": "ok",
    "raise": "raised",
    "die": "crash",
    "one-dies": "crash",
    "silent": "timeout",
    "rubbish": "raised",
    "garbage": "raised",
}
LIMIT = 10.0
#: A world's start, what its ranks are given to answer, twice over since it may be done again.
PATIENCE = 300.0


class Machine(RuleBasedStateMachine):
    """Tasks begin at any time, and the fork server, ranks and strangers do as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.found: Fakes = self.stack.enter_context(fakes())
        #: Tasks that something else may have ended as well.
        self.disturbed: set[int] = set()
        self.lost = False

    @rule(name=st.sampled_from(sorted(ENDS)), size=st.integers(1, 4))
    def task(self, name: str, size: int) -> None:
        self.found.start(name, size, LIMIT)

    @rule(turns=st.integers(1, 8), seconds=st.sampled_from([0.0, 0.01, 0.3]))
    def turn(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            self.found.turn(seconds)

    @rule(seconds=st.floats(1, 500))
    def suspend(self, seconds: float) -> None:
        """The controller is stopped while ranks answer."""
        self.found.launcher.step()
        self.found.clock.now += seconds

    @rule()
    def fork_server_dies(self) -> None:
        self._disturb()
        self.found.launcher.die()

    @rule()
    def fork_server_stops(self) -> None:
        self._disturb()
        with mock.patch.object(processes, "state", return_value="stopped"):
            self.found.turn(1.1)

    @rule()
    def fork_server_talks_nonsense(self) -> None:
        self._disturb()
        with contextlib.suppress(OSError):
            self.found.launcher.other_end.sock.sendall(b"\xff" * 40)

    @rule(data=st.data())
    def rank_is_killed(self, data: st.DataObject) -> None:
        if self.found.launcher.ranks:
            self._disturb()
            pid = data.draw(st.sampled_from(sorted(self.found.launcher.ranks)))
            self.found.launcher.kill_rank(pid)

    @rule(words=st.binary(max_size=40))
    def stranger(self, words: bytes) -> None:
        self.found.stranger(words)

    @rule()
    def place_is_removed(self) -> None:
        # What runs alone, because its folder was removed before, is taken for the cause.
        alone = [handle for task, handle in self.found.scheduler._busy.values() if task.alone]
        self.disturbed |= {i for i, (_, handle) in enumerate(self.found.handles) if handle in alone}
        self.found.launcher.remove_place()

    @rule()
    def torch_is_gone(self) -> None:
        self.found.launcher.restarts = [StartError("no", "")]
        self.lost = True

    def _disturb(self) -> None:
        unfinished = {i for i, (_, handle) in enumerate(self.found.handles) if not handle.finished}
        self.disturbed |= unfinished

    @invariant()
    def ended_tasks_ended_as_they_should(self) -> None:
        for number, (name, handle) in enumerate(self.found.handles):
            if handle.finished:
                outcome = outcome_of(handle).split(maxsplit=1)
                allowed = {ENDS[name]}
                # One that was alone when the fork server went, or whose own rank was killed.
                allowed |= {"crash"} if number in self.disturbed else set()
                allowed |= {"ended"} if self.lost else set()
                assert outcome[0] in allowed, (name, outcome)
                assert outcome[1:] in ([], [str(number)])

    def teardown(self) -> None:
        with self.stack:
            began = self.found.clock.now
            self.found.run()
            assert self.found.clock.now - began < PATIENCE * (1 + len(self.found.handles))
            self.ended_tasks_ended_as_they_should()
            # What was let go is killed, and nothing is kept of it.
            scheduler = self.found.scheduler
            if scheduler.ended is None:
                for _ in range(5):
                    self.found.turn()
                known = {rank.pid for world in scheduler._worlds for rank in world.ranks}
                assert set(self.found.launcher.ranks) <= known
            assert scheduler._busy == {}
            assert (
                scheduler.faults == []
                or self.lost
                or any("Protocol" in f for f in scheduler.faults)
            )


Machine.TestCase.settings = settings(
    max_examples=int(os.environ.get("SCHEDULER_EXAMPLES", "200")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMachine = Machine.TestCase
