"""A scheduler whose fork server and ranks are objects in the test's own process.

Sockets and frames are real; processes and time are not, so that a run takes milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import Any, cast
from unittest import mock

from distparity.core.spool import reserve
from distparity.core.torch_facts import TorchFacts
from distparity.core.wire import Channel, Frame
from distparity.worlds import post_mortem, scheduler, start, world
from distparity.worlds.launcher import Launcher, StartError
from distparity.worlds.scheduler import Job, Scheduler
from distparity.worlds.world import Answer, Failure, Spec, Task

#: What a rank may do with a task, by the task's name.
BEHAVIOURS = ("ok", "raise", "die", "silent", "rubbish", "leave", "garbage", "one-dies", "store")


class Theirs(Channel):
    """The other end of a channel: what a test does to ours does not reach it."""

    send, poll, close = Channel.send, Channel.poll, Channel.close


class Clock:
    """A clock that advances only on request, and a little with every reading."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 1e-4
        return self.now


class FakeProcess:
    """In place of the fork server's process."""

    def __init__(self, directory: str, channel: int) -> None:
        self.directory = directory
        self.channel = channel
        self.pid = os.getpid()

    def kill(self) -> None:
        pass

    def wait(self, limit: float | None = None) -> int:
        return -signal.SIGKILL


class FakeRank:
    """One rank: it says hello, is ready at once, and does with a task what its name says."""

    def __init__(self, spec: dict[str, Any], pid: int) -> None:
        self.spec = spec
        self.pid = pid
        self.alive = True
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(spec["socket"])
        self.channel = Theirs(sock)
        self.channel.send({"op": "hello", "token": spec["token"], "pid": pid})
        self.channel.send({"op": "ready"})

    def step(self, kill: Callable[[FakeRank], None]) -> None:
        try:
            frames, open_ = self.channel.poll()
        except OSError:
            frames, open_ = [], False
        for frame in frames:
            if self.alive and frame["op"] == "task":
                with contextlib.suppress(OSError):
                    self.act(frame, kill)
        if not open_:
            kill(self)

    def act(self, frame: Frame, kill: Callable[[FakeRank], None]) -> None:
        what = frame["task"]
        if what == "one-dies":
            what = "die" if self.spec["rank"] == 0 else "silent"
        if what == "last-silent":
            what = "silent" if self.spec["rank"] == 3 else "ok"
        if what == "raise":
            error = {"op": "raised", "id": frame["id"], "kind": "ValueError", "text": "no"}
            self.channel.send({**error, "traceback": "", "when": 0.0, "seen": {}})
        elif what == "die":
            kill(self)
        elif what == "rubbish":
            self.channel.send({"op": "nonsense"})
        elif what == "garbage":
            self.channel.sock.sendall(b"\0" * 64)
        elif what == "store":
            place = reserve(frame["args"]["spool"], 6)
            with pathlib.Path(frame["args"]["spool"]).open("r+b") as file:
                file.seek(place)
                file.write(f"rank {self.spec['rank']}".encode())
            folder = pathlib.Path(frame["args"]["folder"])
            seen = sorted(path.name for path in folder.iterdir())
            (folder / f"of-{self.spec['rank']}-in-{frame['id']}").write_bytes(b"checkpoint")
            result = {"places": [place], "seen": seen}
            answer = {"op": "answer", "id": frame["id"], "result": result, "seconds": 0.1}
            self.channel.send({**answer, "calls": 1, "left": [], "findings": []})
        elif what in ("ok", "leave"):
            left = ["a thread"] if what == "leave" else []
            answer = {"op": "answer", "id": frame["id"], "result": {"args": frame["args"]}}
            self.channel.send({**answer, "seconds": 0.1, "calls": 1, "left": left, "findings": []})


class FakeLauncher(Launcher):
    """The launcher, with a fork server that :meth:`step` plays."""

    def __init__(self) -> None:
        self.ranks: dict[int, FakeRank] = {}
        self.pids = 100_000
        self.place = tempfile.TemporaryDirectory(prefix="fake-")
        #: What becomes of the next attempts to start the fork server again.
        self.restarts: list[Exception] = []
        self.deaf = False
        self.early: list[int] = []
        super().__init__()

    def _start(self) -> start.ForkServer:
        ours, self.theirs = socket.socketpair()
        return FakeProcess(self.place.name, ours.detach())  # type: ignore[return-value]

    def _connect(self) -> None:
        self.channel = Channel(socket.socket(fileno=self.process.channel))
        self.other_end = Theirs(self.theirs)
        self.facts = cast("TorchFacts", object())

    def restart(self) -> str:
        self.channel.close()
        self.other_end.close()
        for rank in self.ranks.values():
            rank.channel.close()
        self.ranks.clear()
        if self.restarts:
            raise self.restarts.pop(0)
        self.process = self._start()
        self._connect()
        return "SIGKILL"

    def is_busy(self) -> bool:
        return False

    def step(self) -> None:
        """What the fork server and the ranks do in a moment."""
        frames: list[Frame] = []
        with contextlib.suppress(OSError):
            frames = [] if self.deaf else self.other_end.poll()[0]
        for frame in frames:
            with contextlib.suppress(OSError):
                self._serve(frame)
        for rank in list(self.ranks.values()):
            rank.step(self._exit)

    def _serve(self, frame: Frame) -> None:
        if frame["op"] == "fork":
            pids = []
            for spec in frame["ranks"]:
                self.pids += 1
                pids.append(self.pids)
                with contextlib.suppress(OSError):
                    self.ranks[self.pids] = FakeRank(spec, self.pids)
                    continue
                # It finds nobody, and ends.
                self.early.append(self.pids)
            self.other_end.send(
                {"op": "forked", "world": frame["world"], "pids": pids, "error": ""}
            )
            for pid in self.early:
                end = {"op": "exit", "pid": pid, "status": 256, "memory": False}
                self.other_end.send(end)
            self.early.clear()
        elif frame["op"] in ("kill", "signal") and frame.get("signal", 9) in (6, 9):
            for pid in frame["pids"]:
                if pid in self.ranks:
                    self._exit(self.ranks[pid])

    def _exit(self, rank: FakeRank) -> None:
        rank.alive = False
        rank.channel.close()
        if self.ranks.pop(rank.pid, None):
            with contextlib.suppress(OSError):
                self.other_end.send(
                    {"op": "exit", "pid": rank.pid, "status": int(signal.SIGKILL), "memory": False}
                )

    def kill_rank(self, pid: int) -> None:
        """Somebody kills a rank."""
        self._exit(self.ranks[pid])

    def remove_place(self) -> None:
        """Somebody removes the folder with the socket."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def die(self) -> None:
        """The fork server ends, as if killed, and its ranks with it."""
        self.other_end.close()

    def finish(self) -> None:
        for rank in self.ranks.values():
            rank.channel.close()
        for number in list(self._files):
            self.forget(number)
        self.channel.close()
        self.other_end.close()
        self.listener.close()
        self.place.cleanup()


def job(task: Task) -> Job[Answer | Failure]:
    done: Answer | Failure = yield task
    return done


class Fakes:
    """A scheduler with such a launcher, and tasks for it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.launcher = FakeLauncher()
        self.scheduler = Scheduler(self.launcher, room=6)
        self.handles: list[tuple[str, Any]] = []
        self.strangers: list[socket.socket] = []

    def start(self, name: str, size: int = 2, limit: float = 10.0) -> None:
        task = Task(Spec("cpu", size), name, {"number": len(self.handles)}, limit=limit)
        self.handles.append((name, self.scheduler.start(job(task))))

    def stranger(self, words: bytes) -> None:
        """Somebody connects, says something, and stays."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.connect(self.launcher.socket_path)
            sock.send(words)
        self.strangers.append(sock)

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.now += seconds
        self.launcher.step()
        self.scheduler.turn(0.0)
        self.launcher.step()

    def run(self, most: int = 4000) -> None:
        """Until every task has ended."""
        for count in range(most):
            if all(handle.finished for _, handle in self.handles):
                return
            # Ranks are quick; time passes when there is nothing else to wait for.
            self.turn(0.4 if count % 4 == 3 else 0.0)
        raise AssertionError([name for name, handle in self.handles if not handle.finished])

    def outcomes(self) -> list[str]:
        return [outcome_of(handle) for _, handle in self.handles]


def outcome_of(handle: Any) -> str:
    if handle.error is not None:
        return "ended" if isinstance(handle.error, StartError) else f"broken: {handle.error}"
    if isinstance(handle.value, Answer):
        return f"ok {handle.value.results[0]['args']['number']}"
    return f"{handle.value.kind}"


@contextlib.contextmanager
def fakes() -> Iterator[Fakes]:
    found = Fakes()
    time = types.SimpleNamespace(monotonic=found.clock.monotonic)
    with contextlib.ExitStack() as stack:
        for module in (scheduler, world, post_mortem):
            stack.enter_context(mock.patch.object(module, "time", time))
        try:
            yield found
        finally:
            with contextlib.suppress(Exception):
                found.scheduler.close()
            for sock in found.strangers:
                sock.close()
            found.launcher.finish()
