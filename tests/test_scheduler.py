"""Nothing ends a run: not an exception of our own, not the fork server's death, at any moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from fake_ranks import Fakes, fakes, job

from distparity.core import processes
from distparity.core.wire import Channel
from distparity.worlds import scheduler
from distparity.worlds.launcher import Launcher, StartError
from distparity.worlds.post_mortem import PostMortem
from distparity.worlds.scheduler import FORK_LIMIT, Scheduler
from distparity.worlds.world import Answer, Spec, Task, World

TASKS = ("ok", "raise", "ok", "die", "ok", "silent", "leave", "rubbish", "ok", "one-dies", "ok")
EXPECTED = [
    *("ok 0", "raised", "ok 2", "crash", "ok 4", "timeout", "ok 6", "raised", "ok 8"),
    *("crash", "ok 10"),
]

#: Where an exception of ours is raised, once.
POINTS = [
    *((Scheduler, name) for name in ("_world_for", "_place", "_new_world", "_flush_world")),
    *((Scheduler, name) for name in ("_on_forked", "_on_exit", "_on_rank", "_welcome", "_hear")),
    *((Scheduler, name) for name in ("_settle", "_drop", "_hang_up", "_count", "_refuse")),
    *((World, name) for name in ("__init__", "assign", "on_forked", "on_connected", "on_frame")),
    *((World, name) for name in ("on_exit", "on_rubbish", "tick", "retire", "_hand_out")),
    *((World, name) for name in ("_finish", "_upset", "_bury", "_failure", "_bound_output")),
    *((World, name) for name in ("_help_the_dying", "_on_end_of_task", "_send_all")),
    *((PostMortem, name) for name in ("__post_init__", "step", "_report", "_send")),
    *((Launcher, name) for name in ("fork", "forget", "signal", "kill", "accept")),
    *((Channel, name) for name in ("queue", "flush", "poll", "trust")),
]


def run_all(found: Fakes) -> list[str]:
    for name in TASKS:
        found.start(name)
    found.run()
    return found.outcomes()


def test_tasks_end_as_they_should() -> None:
    with fakes() as found:
        assert run_all(found) == EXPECTED
        assert found.scheduler.faults == []


def raising_at(call: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """``real``, but for the call of this number, which raises."""
    count = 0

    def step(self: Any, *args: Any, **rest: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise RuntimeError("injected")
        return real(self, *args, **rest)

    return step


@pytest.mark.parametrize("call", [1, 2, 6])
@pytest.mark.parametrize(
    ("owner", "name"), POINTS, ids=lambda part: getattr(part, "__name__", part)
)
def test_an_exception_of_ours_costs_no_result(owner: type, name: str, call: int) -> None:
    """The task that it interrupts is done again; all have the outcome that they would have had."""
    with fakes() as found:
        step = raising_at(call, getattr(owner, name))
        with mock.patch.object(owner, name, step):
            assert run_all(found) == EXPECTED


@pytest.mark.parametrize("name", ["ok", "leave"])
def test_a_task_that_stops_the_fork_server_and_answers_at_once_is_no_pass(name: str) -> None:
    """Nobody looks at the fork server before the answer comes, which may be the end of its world."""
    with fakes() as found, mock.patch.object(scheduler, "LOOK_AT_FORK_SERVER", 1e9):
        found.start(name)
        with mock.patch.object(processes, "state", return_value="stopped"):
            found.run()

        assert found.outcomes() == ["crash"]


@pytest.mark.parametrize("name", ["_rebuild", "_listen", "fork"])
def test_a_directory_that_is_removed_while_it_is_used_costs_no_result(name: str) -> None:
    """At the first calls, somebody removes the run's directory first."""
    with fakes() as found:
        left, real = 2, getattr(Launcher, name)

        def step(self: Launcher, *args: Any) -> Any:
            nonlocal left
            if left:
                left -= 1
                shutil.rmtree(self.directory)
                if name != "fork":
                    raise FileNotFoundError
            return real(self, *args)

        with mock.patch.object(Launcher, name, step):
            shutil.rmtree(found.launcher.directory)
            assert run_all(found) == EXPECTED
            assert (left, found.scheduler.faults) == (0, [])


@pytest.mark.parametrize(("owner", "name"), POINTS[:20], ids=lambda p: getattr(p, "__name__", p))
def test_an_exception_that_stays_ends_tasks_and_not_the_run(owner: type, name: str) -> None:
    with fakes() as found:
        with mock.patch.object(owner, name, side_effect=RuntimeError("injected")):
            found.start("ok")
            for _ in range(300):
                found.turn(0.1)
        found.start("ok")
        found.run()
        assert found.outcomes()[1] == "ok 1"


@pytest.mark.parametrize("turns", range(0, 40, 3))
def test_the_fork_server_dies_at_any_moment(turns: int) -> None:
    with fakes() as found:
        for name in TASKS:
            found.start(name)
        for _ in range(turns):
            found.turn()
        found.launcher.die()
        found.run()
        assert found.outcomes() == EXPECTED


def test_the_fork_server_dies_after_the_deadline_of_an_idle_world() -> None:
    with fakes() as found:
        found.start("ok", limit=1)
        found.run()
        found.turn(500)
        found.start("ok")
        found.launcher.die()
        found.run()
        assert found.outcomes() == ["ok 0", "ok 1"]


def test_the_fork_server_cannot_be_started_again() -> None:
    with fakes() as found:
        found.launcher.restarts = [StartError("torch cannot be imported: no", "because")]
        for _ in range(5):
            found.start("ok")
        found.turn()
        found.launcher.die()
        before = found.clock.now
        found.run()
        found.start("ok")
        assert found.outcomes() == ["ended"] * 6
        assert found.clock.now - before < 2


@pytest.mark.parametrize("state", ["stopped", "sleeping"])
def test_a_fork_server_that_does_not_answer_is_replaced(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    with fakes() as found:
        monkeypatch.setattr(processes, "state", lambda _: state)
        found.launcher.deaf = True
        found.start("ok")
        found.start("ok")
        found.turn()
        found.turn(2.0 if state == "stopped" else FORK_LIMIT + 1)
        found.launcher.deaf = False
        monkeypatch.setattr(processes, "state", lambda _: "sleeping")
        found.run()
        assert found.outcomes() == ["ok 0", "ok 1"]


@pytest.mark.parametrize("turns", range(0, 24, 2))
def test_the_directory_is_removed_at_any_moment(turns: int) -> None:
    """What fails because of it is done again, alone; idle worlds that have lost it get no task."""
    with fakes() as found:
        for name in TASKS:
            found.start(name)
        for _ in range(turns):
            found.turn()
        before = {world.number for world in found.scheduler._worlds}
        found.launcher.remove_place()
        found.start("ok")
        found.run()
        assert found.outcomes() == [*EXPECTED, f"ok {len(TASKS)}"]
        assert not before & {world.number for world in found.scheduler._worlds}


def test_a_world_that_dies_for_want_of_the_directory_costs_no_result() -> None:
    with fakes() as found:
        found.start("die", size=1)
        found.start("ok", size=2)
        while len(found.scheduler._busy) < 2:
            found.turn()
        found.launcher.remove_place()
        for pid, rank in list(found.launcher.ranks.items()):
            if rank.spec["world_size"] == 2:
                found.launcher.kill_rank(pid)
        found.run()
        assert found.outcomes() == ["crash", "ok 1"]


def test_an_idle_rank_that_is_stopped_gets_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    with fakes() as found:
        found.start("ok")
        found.run()
        stopped = dict(found.launcher.ranks)
        state = processes.state
        monkeypatch.setattr(
            processes, "state", lambda pid: "stopped" if pid in stopped else state(pid)
        )
        found.start("ok")
        found.run()
        assert found.outcomes() == ["ok 0", "ok 1"]
        assert not stopped.keys() & found.launcher.ranks.keys()


def test_what_was_answered_while_nobody_listened_is_no_timeout() -> None:
    """As when the controller is stopped for longer than the limit: part of an answer is there."""
    with fakes() as found:
        found.start("silent", size=1, limit=10)
        while not found.launcher.ranks or found.scheduler._queue:
            found.turn()
        for _ in range(4):
            found.turn()
        (rank,) = found.launcher.ranks.values()
        found.turn(100)
        answer = {"op": "answer", "id": 1, "result": {"args": {"number": 0}}}
        rank.channel.send({**answer, "seconds": 0.1, "calls": 1, "left": [], "findings": []})
        found.run()
        assert found.outcomes() == ["ok 0"]


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("name", ["silent", "one-dies", "raise"])
def test_what_begins_after_nobody_listened_has_its_own_time(name: str, before: int) -> None:
    """As when the controller is stopped for an hour: nothing that is set after it waits an hour more."""
    with fakes() as found:
        found.start(name, limit=10)
        for _ in range(before):
            found.turn()
        found.launcher.step()
        found.clock.now += 3600
        began = found.clock.now
        found.run()
        assert found.outcomes() == [{"silent": "timeout", "one-dies": "crash"}.get(name, "raised")]
        assert found.clock.now - began < 10 + 60


def test_a_task_that_is_alone_when_the_directory_goes_again_is_its_cause() -> None:
    with fakes() as found:
        found.start("garbage", size=1)
        for _ in range(2):
            while not found.launcher.ranks:
                found.launcher.step()
                found.scheduler.turn(0.0)
            found.launcher.remove_place()
            for pid in list(found.launcher.ranks):
                found.launcher.kill_rank(pid)
        found.run()
        assert found.outcomes() == ["crash"]


def test_jobs_begin_beside_one_that_was_given_up() -> None:
    """It leaves no room, and whoever asked for it may have taken another's answer."""
    with fakes() as found:
        found.start("silent", size=6)
        while found.scheduler.idle:
            found.turn()
        real = found.scheduler.turn

        def turn() -> None:
            with mock.patch.object(found.scheduler, "turn", real):
                found.turn(0.1)

        todo = [Task(Spec("cpu", 1), "ok", {"number": number}) for number in range(2)]
        with mock.patch.object(found.scheduler, "turn", turn):
            done = dict(found.scheduler.side_by_side(range(2), lambda number: job(todo[number])))

    answers = [answer for answer in done.values() if isinstance(answer, Answer)]
    assert [answer.results[0]["args"]["number"] for answer in answers] == [0, 1]
