"""The fork server: a process that imports torch once and forks the ranks.

A rank that is forked here starts in tens of milliseconds, because everything that a case imports has
been imported already. The fork server itself runs no tensor operation and touches no accelerator, so
that ranks start in a clean state.

It is also the last process to end. If the controller ends in any way (including SIGKILL), the fork
server sees the end of its socket, kills all its descendants, makes XML from the results so far, and
removes the run's directory.
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
from distparity.core import processes, registry
from distparity.core.own_cases import Module, OwnScenario
from distparity.core.wire import Channel, Frame, ProtocolError
from distparity.devices import PluginError, arithmetic, backends, delays
from distparity.worker import own

__all__ = ["main"]

#: Modules that are imported here once, before the first request.
PRELOAD = (
    "torch",
    "torch.distributed",
    "torch.nn.parallel",
    "torch.distributed.fsdp",
    "torch.distributed.device_mesh",
)
#: Modules that optimizers import at their first step, and those for pipelines, for ZeRO and for the first
#: checkpoint. Each rank would take seconds for them in its first case. Listing the cases does not need
#: them, so they are imported later, while the controller is busy.
AFTERWARDS = ("torch._dynamo", "torch.distributed.optim", "torch.distributed.pipelining", "fsspec")
#: Seconds for a helper process to remove shared memory after its users have ended.
TIDYING = 0.5
#: After so many seconds without a request, :data:`AFTERWARDS` is imported.
IDLE = 0.02


def main(fd: int, directory: str) -> None:
    """Serve the controller on the inherited socket ``fd`` until it goes away.

    ``directory`` is the run's own.
    """
    channel = Channel(socket.socket(fileno=fd))
    os.set_inheritable(fd, False)
    processes.adopt_orphans()
    # A signal to the whole process group or container also reaches this process. It ignores it, and
    # ends only after the controller, when the socket is closed.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Importing makes a million objects and almost no garbage: the garbage collector would take a fifth
    # of the time.
    gc.disable()
    try:
        with _ending_with_parent(directory):
            _preload()
        setup = channel.receive()
        if setup is None:
            _leave(directory)
        facts = _set_up(setup)
    except BaseException as error:
        plugin = isinstance(error, (PluginError, own.CannotImport, registry.Clash))
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
    # Skip the clean-up of the interpreter: the controller waits for this process to end.
    os._exit(0)


def _preload() -> None:
    # Vendors' packages read the choice of the device while they are imported, and only a rank knows it.
    # So they are loaded in the rank; here, a missing driver would end all ranks.
    # The sanitizer of streams is a rank's as well.
    with _variable("TORCH_DEVICE_BACKEND_AUTOLOAD", "0"), _variable("TORCH_CUDA_SANITIZER", None):
        importlib.import_module("torch")
    for name in PRELOAD:
        importlib.import_module(name)
    # This is part of importing torch: a failure is reported from here.
    from distparity.worker import tasks  # noqa: F401


@contextlib.contextmanager
def _ending_with_parent(directory: str) -> Iterator[None]:
    """Until the set-up request comes, end with the parent, because the loop does not listen yet."""
    signal.signal(processes.ORPHANED, lambda *_: _leave(directory))
    processes.hear_of_parents_end()
    yield
    processes.outlive_parent()


def _leave(directory: str) -> NoReturn:
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


def _set_up(setup: Frame) -> dict[str, Any]:
    """Load the run's own plug-ins and included modules; returns the facts about torch."""
    for name in setup["include"]:
        importlib.import_module(name)
    if setup["include"]:
        from distparity import scenarios

        scenarios.check()
    for one in setup["own_modules"]:
        own.load(Module.from_json(one))
    for one in setup["own_scenarios"]:
        own.name(OwnScenario.from_json(one))
    for reference in setup["plugins"]:
        devices.plug(reference)
    arithmetic.choose(setup["arithmetic"])
    backends.choose(setup["backend"])
    delays.choose(setup["perturb"])
    from distparity.worker import stack_reporter, tasks

    stack_reporter.choose(recording=setup["log"])
    return tasks.facts(setup["drawn"]).to_json()


@contextlib.contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """Within it, an environment variable has this value, or is not there."""
    before = os.environ.get(name)
    _put(name, value)
    try:
        yield
    finally:
        _put(name, before)


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


class _Server:
    """The fork server's loop: fork, signal and kill on request, report every exit."""

    def __init__(self, channel: Channel, directory: str, write_report: list[str]) -> None:
        self.channel = channel
        self.directory = directory
        #: The ranks that are alive, each with the value of :func:`processes.memory_kills` at its start.
        self.ranks: dict[int, int] = {}
        #: When this run began. If containers share the host's shared memory, an older segment may belong
        #: to another container's process with the same process id.
        self.began = time.time()
        #: By rank, the processes that may own shared memory: the rank and its descendants.
        self.owners: dict[int, set[int]] = {}
        self.journals: list[str] = []
        #: The command that makes XML from a side file.
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
                # An import blocks this loop, so wait until no rank is probing a device.
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
            # The controller ended in the middle of a frame.
            pass
        except BaseException:
            # A controller that starts another fork server still needs the directory.
            self._end_ranks()
            raise
        self._last_act()

    def on_fork(self, frame: Frame) -> None:
        pids: list[int] = []
        error = ""
        if any(rank["device"] for rank in frame["ranks"]):
            # A bare process probes a device, and does not train.
            self._complete()
        for rank in frame["ranks"]:
            try:
                pid = os.fork()
            except OSError as refused:
                # The machine has no room for another process.
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
        """Import the other modules that ranks need, unless that is done already."""
        if not self.complete:
            self.complete = True
            for name in AFTERWARDS:
                with contextlib.suppress(Exception):
                    # If the import fails, the rank that needs the module will report that.
                    importlib.import_module(name)
            # Imported objects stay alive, so a rank's garbage collector need not traverse them.
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
            # The fork server may not have frozen its objects yet, and traversing them takes long.
            gc.freeze()
            gc.enable()
            os.setsid()
            processes.die_with_parent()
            # Processes that a case starts stay descendants of the rank, even if they detach.
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
        """Kill a rank and its descendants, except the helpers that remove its shared memory."""
        members = processes.session(pid)
        self.owners[pid] = {pid, *members, *self.owners.get(pid, ())}
        tidy = [member for member in members if processes.tidies_up(member)]
        if not tidy:
            # Stop all of them first, so that none can start another in between.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        _kill_each({pid, *members}.difference(tidy))
        processes.await_end(tidy, TIDYING)

    def _reap(self) -> None:
        while (pid := _ended()) is not None:
            if pid in self.ranks:
                # Before waiting for the process, while its process id cannot be reused.
                self._kill(pid)
            _, status = os.waitpid(pid, 0)
            if pid in self.ranks:
                memory = processes.memory_kills() > self.ranks.pop(pid)
                _remove_shared_memory(self.owners.pop(pid), self.began)
                self.channel.send({"op": "exit", "pid": pid, "status": status, "memory": memory})
            # The children of a killed orphan become orphans too.
            self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Kill the processes that dead ranks left: every child that is not a rank is one of them."""
        adopted = [pid for pid in processes.children() if pid not in self.ranks]
        tidy = list(filter(processes.tidies_up, adopted))
        # Other processes first: a helper that removes shared memory waits for their end.
        _kill_each(set(adopted).difference(tidy))
        processes.await_end(tidy, TIDYING)
        _kill_each(tidy)
        _remove_shared_memory(adopted, self.began)

    def _end_ranks(self) -> None:
        """Kill all descendants of this process, and remove their shared memory."""
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
            # By a program of the controller's side: the torch side knows nothing about XML.
            with contextlib.suppress(OSError):
                subprocess.run([*self.write_report, path], check=False, stdin=subprocess.DEVNULL)
        shutil.rmtree(self.directory, ignore_errors=True)


def _kill_each(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _ended() -> int | None:
    """A child that has ended and has not been waited for; None if there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def _remove_shared_memory(pids: Iterable[int], since: float) -> None:
    """Remove shared memory segments that torch named after these processes since a given time."""
    mine = {str(pid) for pid in pids}
    for path in Path("/dev/shm").glob("torch_*"):  # noqa: S108  it is where they are
        if path.name.split("_")[1] in mine:
            with contextlib.suppress(OSError):
                if path.lstat().st_ctime >= since:
                    path.unlink()
