"""The controller's end of the fork server: start it, request ranks, learn of every exit."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distparity.core import processes
from distparity.core.own_cases import Module, OwnScenario
from distparity.core.spool import Spools
from distparity.core.torch_facts import TorchFacts
from distparity.core.wire import Channel, Frame, ProtocolError
from distparity.worlds import start
from distparity.worlds.output import OutputFile, tail

__all__ = ["Launcher", "StartError"]

#: Seconds for killing the processes that a dead fork server left; one inside the kernel may take
#: longer.
ADOPTED = 5.0
#: How often the run's directory is made again, while somebody is removing it.
REPAIRS = 50


class StartError(Exception):
    """torch could not be imported, or the fork server died. ``detail`` has its output or traceback."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class Launcher:
    """Owns the fork server, the run's private directory, and the socket on which ranks report.

    Only :meth:`ready` blocks: it waits until torch is imported. Start the launcher early and do
    something else in the meantime. It is node 0 of a run (:class:`distparity.worlds.fleet.Node`).
    """

    number = 0
    address = interface = ""

    def __init__(
        self,
        include: list[str] | None = None,
        plugins: list[str] | None = None,
        arithmetic: str = "exact",
        own_scenarios: Sequence[OwnScenario] = (),
        own_modules: Sequence[Module] = (),
        drawn: Sequence[str] = (),
        *,
        log: bool = True,
        backend: str | None = None,
        perturb: int | None = None,
    ) -> None:
        self.include = include or []
        self.own_scenarios, self.own_modules = own_scenarios, own_modules
        #: The names of drawn scenarios that are among the facts about torch.
        self.drawn = list(drawn)
        self.plugins = plugins or []
        self.arithmetic = arithmetic
        #: Whether ranks keep a record of their collectives.
        self.log = log
        #: What ranks make their groups with; None for the device's own backend.
        self.backend = backend
        #: The seed of delays in ranks; None for no delays.
        self.perturb = perturb
        self.facts: TorchFacts | None = None
        self.name = socket.gethostname()
        self.journals: list[str] = []
        start.open_standard_streams()
        # If the fork server is killed, processes that the kernel does not end with it become our
        # children: those in a session of their own, or of another user.
        processes.adopt_orphans()
        self._before = set(processes.children())
        self.process = self._start()
        self.directory = self.process.directory
        self.socket_path = os.path.join(self.directory, "ranks")
        self.spools = Spools(self.directory)
        self._listen()
        #: The files of the ranks, for every world that is alive.
        self._files: dict[int, list[list[OutputFile]]] = {}
        self._connect()

    def _listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket_path)
        self.listener.listen(128)
        self.listener.setblocking(False)
        self._place = _identity(self.socket_path)

    def repair(self) -> socket.socket | None:
        """Recreate the run's directory and socket if somebody has removed or replaced them.

        Returns the old listener, which is closed; None if nothing had to be repaired.
        """
        if _identity(self.socket_path) == self._place:
            return None
        before = self.listener
        before.close()
        for attempt in range(1, REPAIRS + 1):
            try:
                self._rebuild()
                break
            except (FileNotFoundError, FileExistsError):
                # Somebody is still removing it.
                if attempt == REPAIRS:
                    raise
                time.sleep(0.01)
        return before

    def _rebuild(self) -> None:
        folder = Path(self.directory)
        if folder.is_symlink() or not folder.is_dir():
            folder.unlink(missing_ok=True)
            folder.mkdir(mode=0o700)
        Path(self.directory, "scratch").mkdir(exist_ok=True)
        Path(self.socket_path).unlink(missing_ok=True)
        self._listen()

    def restart(self) -> str:
        """Start another fork server after one died, or kill one that hangs; returns how it ended.

        Raises :class:`StartError` if torch cannot be imported again.
        """
        self.channel.close()
        # Killing a process that is dead does no harm, and one that lives serves nobody any more.
        self.process.kill()
        status = self.process.wait()
        self._end_adopted()
        self.facts = None
        self.process = start.start(self.directory)
        self._connect()
        self.ready()
        return signal.Signals(-status).name if status < 0 else f"exit code {status}"

    def _end_adopted(self) -> None:
        """Kill the processes that a dead fork server left.

        They are our children in another session than ours: the fork server and each rank make a
        session of their own, and other children of this process share our session.
        """
        until = time.monotonic() + ADOPTED
        while time.monotonic() < until:
            found = [pid for pid in processes.children() if self._is_adopted(pid)]
            if not found:
                return
            for pid in found:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.002)

    def _is_adopted(self, pid: int) -> bool:
        if pid == self.process.pid or pid in self._before:
            return False
        try:
            return os.getsid(pid) != os.getsid(0)
        except ProcessLookupError:
            return False

    def _start(self) -> start.ForkServer:
        return start.take()

    def _connect(self) -> None:
        self.channel = Channel(socket.socket(fileno=self.process.channel))
        # If it is dead already, :meth:`ready` reports how it ended.
        with contextlib.suppress(OSError):
            self.channel.send({"op": "setup", **self.setup, "write_report": start.write_report()})

    @property
    def setup(self) -> dict[str, Any]:
        """What a fork server of this run is told, on any machine."""
        return {
            "include": self.include,
            "own_scenarios": [one.to_json() for one in self.own_scenarios],
            "own_modules": [one.to_json() for one in self.own_modules],
            "drawn": self.drawn,
            "plugins": self.plugins,
            "arithmetic": self.arithmetic,
            "log": self.log,
            "backend": self.backend,
            "perturb": self.perturb,
        }

    def ready(self, limit: float = 300.0) -> TorchFacts:
        """Wait at most ``limit`` seconds until torch is imported; raises :class:`StartError`."""
        if self.facts is not None:
            return self.facts
        self.channel.sock.settimeout(limit)
        try:
            frame = self.channel.receive()
        except TimeoutError:
            raise StartError(
                f"importing torch took more than {limit:.0f} s", self._tail()
            ) from None
        except (OSError, ProtocolError) as error:
            raise StartError(
                f"the process that imports torch failed: {error}", self._tail()
            ) from None
        finally:
            self.channel.sock.settimeout(None)
        if frame is None:
            status = self.process.wait()
            how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
            raise StartError(f"the process that imports torch died ({how})", self._tail())
        if frame["op"] == "failed":
            if frame["plugin"]:
                raise StartError(frame["error"], frame["traceback"])
            raise StartError(f"torch cannot be imported: {frame['error']}", frame["traceback"])
        facts = TorchFacts.from_json(frame["facts"])
        for path in self.journals:
            self.channel.send({"op": "journal", "path": path})
        self.facts = facts
        return facts

    def _tail(self) -> str:
        return tail(start.output(self.directory))

    def fork(self, world: int, specs: list[dict[str, Any]]) -> list[list[OutputFile]]:
        """Request ranks; the answer comes as a frame ``forked`` on :attr:`channel`.

        Returns each rank's files: its output, its Python stacks, and its stack reporter's line. Raises
        ``OSError`` if these cannot be made; nothing is then left of them.
        """
        files = self._files[world] = []
        store = os.path.join(self.directory, f"world{world}-store-{secrets.token_hex(4)}")
        for spec in specs:
            spec["token"] = secrets.token_hex(16)
            spec["socket"] = self.socket_path
            spec["store"] = store
            # A random name, so that no rank can have created the file before.
            name = f"world{world}-rank{spec['rank']}-{secrets.token_hex(4)}"
            spec["output"] = os.path.join(self.directory, name)
            spec["scratch"] = f"{spec['output']}.tmp"
            mine: list[OutputFile] = []
            files.append(mine)
            try:
                ends = ("", ".stacks", ".where")
                mine.extend(OutputFile(f"{spec['output']}{end}") for end in ends)
            except OSError:
                self.forget(world)
                raise
        self.channel.queue({"op": "fork", "world": world, "ranks": specs})
        return files

    def forget(self, world: int) -> None:
        """Close and remove a dead world's files."""
        for mine in self._files.pop(world, []):
            for file in mine:
                file.close()
        for path in Path(self.directory).glob(f"world{world}-*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def signal(self, pids: list[int], number: int, *, main: bool = False) -> None:
        """Send a signal to ranks, with ``main`` to the main thread of each."""
        self.channel.queue({"op": "signal", "pids": pids, "signal": int(number), "main": main})

    def state(self, pid: int) -> str:
        return processes.state(pid)

    def wants_to_run(self, pid: int, *, main: bool = True) -> bool:
        return processes.wants_to_run(pid, main=main)

    def is_busy(self) -> bool:
        """Whether the fork server runs or waits for a CPU, and may have signals yet to send."""
        return processes.wants_to_run(self.process.pid)

    def kill(self, pids: list[int]) -> None:
        self.channel.queue({"op": "kill", "pids": pids})

    def journal(self, path: str) -> None:
        """Tell the fork server to make XML from the side file ``path`` if this process dies."""
        self.journals.append(path)
        self.channel.queue({"op": "journal", "path": path})

    def accept(self, most: int) -> Channel | None:
        """Accept a connection; its first frame, of at most ``most`` bytes, says which rank it is."""
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return None
        return Channel(sock, most)

    def close(self, *, reported: bool) -> None:
        """End everything that came from the fork server, and wait until it is gone.

        ``reported`` says that the XML is written; otherwise the fork server writes it.
        """
        with contextlib.suppress(OSError):
            if reported:
                self.channel.queue({"op": "done"})
            deadline = time.monotonic() + 5
            while self.channel.pending and time.monotonic() < deadline:
                self.channel.flush()
        self.channel.close()
        self.listener.close()
        for world in list(self._files):
            self.forget(world)
        try:
            self.process.wait(10)
        except TimeoutError:
            self.process.kill()
            self.process.wait()
        self._end_adopted()
        shutil.rmtree(self.directory, ignore_errors=True)


def _identity(path: str) -> tuple[int, int] | None:
    """The device and inode of a path, without following links; None if nothing is there."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def first_frame(frame: Frame) -> str | None:
    """The token of a rank's hello, or None if the frame is not a hello."""
    token = frame.get("token")
    return token if frame.get("op") == "hello" and isinstance(token, str) else None
