"""The fork server: one process that has torch imported and forks ranks from it.

A rank forked from here starts in tens of milliseconds, because everything that a case imports has
been imported once. The fork server itself runs no tensor operation and touches no accelerator, so that
every fork is a clean one.

It also is the last to leave. When the controller goes away, in whatever manner (SIGKILL included),
the fork server sees the end of its socket, kills every process that came from it, turns the results
that were already written down into XML, and removes the run's directory.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from distparity import devices
from distparity.core import processes
from distparity.core.wire import Channel, Frame, ProtocolError
from distparity.devices import PluginError

__all__ = ["main"]

#: Imported once, here, before anything else can be said.
PRELOAD = (
    "torch",
    "torch.distributed",
    "torch.nn.parallel",
    "torch.distributed.fsdp",
    "torch.distributed.device_mesh",
)
#: What the optimizers import at their first step, and pipelines besides; a rank that had to do that
#: by itself would take seconds for its first case. Listing the cases does without, and so it is
#: imported meanwhile.
AFTERWARDS = ("torch._dynamo", "torch.distributed.pipelining")
#: Seconds that a process has which removes shared memory when those have ended that had it.
TIDYING = 0.5
#: Seconds without a request after which there is time for :data:`AFTERWARDS`.
IDLE = 0.02


def main(fd: int, directory: str) -> None:
    """Serve the controller on the inherited socket ``fd`` until it goes away.

    ``directory`` is the run's own.
    """
    channel = Channel(socket.socket(fileno=fd))
    os.set_inheritable(fd, False)
    processes.adopt_orphans()
    # Whoever ends a whole group or container signals this process too; it leaves when the
    # controller has, which the end of the socket tells, and not before.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Importing makes a million objects and next to no garbage: the collector would look for it
    # again and again, for a fifth of the whole time.
    gc.disable()
    try:
        with _ending_with_parent(directory):
            _preload()
        setup = channel.receive()
        if setup is None:
            _leave(directory)
        facts = _set_up(setup)
    except BaseException as error:
        plugin = isinstance(error, PluginError)
        text = str(error) if plugin else f"{type(error).__name__}: {error}"
        channel.send(
            {
                "op": "failed",
                "plugin": plugin,
                "error": text.splitlines()[0],
                "traceback": traceback.format_exc(),
            }
        )
        return
    channel.send({"op": "ready", "facts": facts})
    _Server(channel, directory, setup["write_report"]).run()
    # The controller waits for this end, and to take torch apart has no other use.
    os._exit(0)


def _preload() -> None:
    # Vendors' packages read what chooses their device while they are imported, and that a rank
    # knows. So its device loads them there; here a driver that is missing would be everybody's end.
    with _variable("TORCH_DEVICE_BACKEND_AUTOLOAD", "0"):
        importlib.import_module("torch")
    for name in PRELOAD:
        importlib.import_module(name)
    # With torch, and not before it: what keeps it from being imported is told from here.
    from distparity.worker import tasks  # noqa: F401


@contextlib.contextmanager
def _ending_with_parent(directory: str) -> Iterator[None]:
    """While nobody has said what for this process is there, and it cannot listen."""
    signal.signal(processes.ORPHANED, lambda *_: _leave(directory))
    processes.hear_of_parents_end()
    yield
    processes.outlive_parent()


def _leave(directory: str) -> NoReturn:
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


def _set_up(setup: Frame) -> dict[str, Any]:
    """Load what belongs to this run alone; returns the facts."""
    for name in setup["include"]:
        importlib.import_module(name)
    for reference in setup["plugins"]:
        devices.plug(reference)
    from distparity.worker import tasks

    return tasks.facts().to_json()


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """An environment variable, for as long as this lasts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Server:
    """The fork server's loop: fork, signal and kill on request, report every exit."""

    def __init__(self, channel: Channel, directory: str, write_report: list[str]) -> None:
        self.channel = channel
        self.directory = directory
        #: The living ranks, each with what :func:`processes.memory_kills` was when it began.
        self.ranks: dict[int, int] = {}
        #: Where shared memory is the host's, a process of another container may have had a rank's
        #: number before: what is older than this run is not ours.
        self.began = time.time()
        #: By rank, who may have shared memory: it and what it has started.
        self.owners: dict[int, set[int]] = {}
        self.journals: list[str] = []
        #: The words of a command that makes a side file into XML.
        self.write_report = write_report
        self.complete = False

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        wake_read, wake_write = socket.socketpair()
        for end in (wake_read, wake_write):
            end.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector.register(self.channel, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        alive = True
        try:
            while alive:
                # Who imports hears of nobody's end: not while there are ranks that look at devices.
                busy = self.complete or self.ranks
                if not selector.select(None if busy else IDLE):
                    self._complete()
                with contextlib.suppress(BlockingIOError):
                    wake_read.recv(4096)
                frames, alive = self.channel.poll()
                for frame in frames:
                    getattr(self, f"on_{frame['op']}")(frame)
                self._reap()
        except (ConnectionError, ProtocolError):
            # It went away in the middle of a word.
            pass
        except BaseException:
            # Who starts another one of these still needs what is on the disk.
            self._end_ranks()
            raise
        self._last_act()

    def on_fork(self, frame: Frame) -> None:
        pids: list[int] = []
        error = ""
        if any(rank["device"] for rank in frame["ranks"]):
            # A bare process looks at a device, and does not train.
            self._complete()
        for rank in frame["ranks"]:
            try:
                pid = os.fork()
            except OSError as refused:
                # Somebody has left no room for another process.
                error = f"{refused.strerror} ({refused.errno})"
                break
            if pid == 0:
                self._become_rank(rank)
            self.ranks[pid] = processes.memory_kills()
            pids.append(pid)
        if error:
            for pid in pids:
                self._kill(pid)
        self.channel.send({"op": "forked", "world": frame["world"], "pids": pids, "error": error})

    def _complete(self) -> None:
        """Import the rest of what ranks need, if that has not been done."""
        if not self.complete:
            self.complete = True
            for name in AFTERWARDS:
                with contextlib.suppress(Exception):
                    # Where it cannot be imported, a rank says so, and says who wanted it.
                    importlib.import_module(name)
            # What has been imported stays: a rank's collector need not walk it after every case.
            gc.freeze()
            gc.enable()

    def on_signal(self, frame: Frame) -> None:
        deliver = processes.signal_main_thread if frame["main"] else os.kill
        for pid in self.ranks.keys() & frame["pids"]:
            with contextlib.suppress(ProcessLookupError):
                deliver(pid, frame["signal"])

    def on_kill(self, frame: Frame) -> None:
        for pid in self.ranks.keys() & frame["pids"]:
            self._kill(pid)

    def on_journal(self, frame: Frame) -> None:
        self.journals.append(frame["path"])

    def on_done(self, _frame: Frame) -> None:
        """The controller has written its reports itself."""
        self.journals.clear()

    def _become_rank(self, rank: dict[str, Any]) -> None:
        try:
            # The fork server may not have come so far, and to walk what it has imported takes long.
            gc.freeze()
            gc.enable()
            os.setsid()
            processes.die_with_parent()
            # What a case starts and forgets stays a child of its rank, however it detaches itself.
            processes.adopt_orphans()
            processes.offer_to_memory_killer()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            self.channel.close()
            from distparity.worker import rank_loop, tasks

            rank_loop.main(rank, tasks.TASKS)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _kill(self, pid: int) -> None:
        """Kill a rank and what it has started, but for what removes its shared memory then."""
        members = processes.session(pid)
        self.owners[pid] = {pid, *members, *self.owners.get(pid, ())}
        tidy = [member for member in members if processes.tidies_up(member)]
        if not tidy:
            # All at once, so that none can start another in between.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        _kill_each({pid, *members}.difference(tidy))
        processes.await_end(tidy, TIDYING)

    def _reap(self) -> None:
        while (pid := _ended()) is not None:
            if pid in self.ranks:
                # Before the process is waited for, so that its number is nobody else's yet.
                self._kill(pid)
            _, status = os.waitpid(pid, 0)
            if pid in self.ranks:
                memory = processes.memory_kills() > self.ranks.pop(pid)
                _remove_shared_memory(self.owners.pop(pid), self.began)
                self.channel.send({"op": "exit", "pid": pid, "status": status, "memory": memory})
            # Killing an orphan makes orphans of its own children.
            self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Kill what dead ranks left behind: every child that is no rank was adopted."""
        adopted = [pid for pid in processes.children() if pid not in self.ranks]
        tidy = list(filter(processes.tidies_up, adopted))
        # First the others: what removes a dead rank's shared memory waits for its children too.
        _kill_each(set(adopted).difference(tidy))
        processes.await_end(tidy, TIDYING)
        _kill_each(tidy)
        _remove_shared_memory(adopted, self.began)

    def _end_ranks(self) -> None:
        """Kill every process that came from this one, and remove what is theirs in memory."""
        for pid in list(self.ranks):
            self._kill(pid)
        self.ranks.clear()
        while processes.have_children():
            self._kill_orphans()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
        for pids in self.owners.values():
            _remove_shared_memory(pids, self.began)

    def _last_act(self) -> None:
        self._end_ranks()
        for path in self.journals:
            # The controller's own program, as it had it: what XML is, this side does not know.
            with contextlib.suppress(OSError):
                subprocess.run([*self.write_report, path], check=False, stdin=subprocess.DEVNULL)
        shutil.rmtree(self.directory, ignore_errors=True)


def _kill_each(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _ended() -> int | None:
    """A child that has ended and was not waited for yet."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def _remove_shared_memory(pids: Iterable[int], since: float) -> None:
    """Remove the segments that torch named after these processes since a time of the clock."""
    mine = {str(pid) for pid in pids}
    for path in Path("/dev/shm").glob("torch_*"):  # noqa: S108  it is where they are
        if path.name.split("_")[1] in mine:
            with contextlib.suppress(OSError):
                if path.lstat().st_ctime >= since:
                    path.unlink()
