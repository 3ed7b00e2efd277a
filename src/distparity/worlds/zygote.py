"""The zygote: one process that has torch imported and forks ranks from it.

A rank forked from here starts in tens of milliseconds, because everything that a case imports has
been imported once. The zygote itself runs no tensor operation and touches no accelerator, so that
every fork is a clean one.

It also is the last to leave. When the controller goes away, in whatever manner (SIGKILL included),
the zygote sees the end of its socket, kills every process that came from it, turns the results
that were already written down into XML, and removes the run's directory.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import selectors
import shutil
import signal
import socket
import sys
import traceback
from typing import Any

from distparity import devices
from distparity.devices import PluginError
from distparity.worlds import processes
from distparity.worlds.wire import Channel, Frame, ProtocolError

__all__ = ["main"]

#: Imported once, here. The optimizers import ``torch._dynamo`` at their first step; a rank that had
#: to do that by itself would take seconds for its first case.
PRELOAD = (
    "torch",
    "torch.distributed",
    "torch.nn.parallel",
    "torch.distributed.fsdp",
    "torch.distributed.device_mesh",
    "torch._dynamo",
)
TASKS = "distparity.tasks"


def main(fd: int) -> None:
    """Serve the controller on the inherited socket ``fd`` until it goes away."""
    channel = Channel(socket.socket(fileno=fd))
    os.set_inheritable(fd, False)
    processes.adopt_orphans()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    setup = channel.receive()
    if setup is None:
        return
    try:
        facts = _preload(setup)
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
    # What has been imported stays: a rank's collector need not walk it again after every case.
    gc.collect()
    gc.freeze()
    channel.send({"op": "ready", "facts": facts})
    _Server(channel, setup).run()


def _preload(setup: dict[str, Any]) -> dict[str, Any]:
    for name in PRELOAD:
        importlib.import_module(name)
    tasks = importlib.import_module(TASKS)
    for name in setup["include"]:
        importlib.import_module(name)
    for reference in setup["plugins"]:
        devices.plug(reference)
    facts: dict[str, Any] = tasks.facts()
    return facts


class _Server:
    """The zygote's loop: fork, signal and kill on request, report every exit."""

    def __init__(self, channel: Channel, setup: dict[str, Any]) -> None:
        self.channel = channel
        self.setup = setup
        self.ranks: set[int] = set()
        self.journals: list[str] = []

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
                selector.select()
                with contextlib.suppress(BlockingIOError):
                    wake_read.recv(4096)
                frames, alive = self.channel.poll()
                for frame in frames:
                    getattr(self, f"on_{frame['op']}")(frame)
                self._reap()
        except (OSError, ProtocolError):
            pass
        finally:
            self._last_act()

    def on_fork(self, frame: Frame) -> None:
        pids = []
        for rank in frame["ranks"]:
            pid = os.fork()
            if pid == 0:
                self._become_rank(rank)
            self.ranks.add(pid)
            pids.append(pid)
        self.channel.send({"op": "forked", "world": frame["world"], "pids": pids})

    def on_signal(self, frame: Frame) -> None:
        for pid in self.ranks.intersection(frame["pids"]):
            os.kill(pid, frame["signal"])

    def on_kill(self, frame: Frame) -> None:
        for pid in self.ranks.intersection(frame["pids"]):
            self._kill(pid)

    def on_journal(self, frame: Frame) -> None:
        self.journals.append(frame["path"])

    def on_done(self, _frame: Frame) -> None:
        """The controller has written its reports itself."""
        self.journals.clear()

    def _become_rank(self, rank: dict[str, Any]) -> None:
        try:
            os.setsid()
            processes.die_with_parent()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            self.channel.close()
            from distparity.worlds import rank as rank_loop

            rank_loop.main(rank)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _kill(self, pid: int) -> None:
        # The whole group: what a rank started dies with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.ranks:
                self.ranks.discard(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                self._kill_orphans()
                self.channel.send({"op": "exit", "pid": pid, "status": status})

    def _kill_orphans(self) -> None:
        """Kill what a dead rank left behind: every child that is no rank was adopted."""
        for pid in processes.children():
            if pid not in self.ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _last_act(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for pid in list(self.ranks):
            self._kill(pid)
        while processes.children():
            self.ranks.clear()
            self._kill_orphans()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
        from distparity import junit

        for path in self.journals:
            with contextlib.suppress(Exception):
                junit.write_from_journal(path)
        shutil.rmtree(self.setup["directory"], ignore_errors=True)


if __name__ == "__main__":
    faulthandler.enable()
    main(int(sys.argv[1]))
