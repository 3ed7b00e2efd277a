"""Runs of the suite whose fork server is forked from a process that has imported torch already.

A run of one case takes four seconds of CPU time, more than two of them for importing torch, and the
tests make hundreds. Here, one process imports torch, and has a fork for each process that runs tests. For
each run, that forks a process that starts a fork server, by forking again, and then becomes the command,
as ``distparity run`` becomes pytest: the suite is imported as well. All else is as always: the fork server
is a child of the controller, which takes it over if the circumstances are alike.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

#: After so many seconds, a test takes what it has started for hanging. It is not a measure of anything:
#: on a machine that is busy with other things, an install or a run may take many minutes.
PATIENCE = 1800
#: Requests are datagrams, with descriptors.
SOCKET = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
#: By its value in ``/proc/PID/environ``, the processes of a run are found (``faulty_runs.py``).
MARK = "SUITE_MARK"
#: Torch and Python read variables of these names while they are imported or started.
READ_EARLY = ("KINETO", "LANG", "LC_", "LD_", "MKL_", "OMP_", "PYTHON", "PYTORCH", "TORCH")
#: What runs and their ranks import besides.
_LATER = (
    "distparity.worker.leak_check",
    "distparity.worker.stack_reporter",
    "distparity.devices.cpu",
)
#: One that torch reads when a process makes its first group.
READ_LATE = {"TORCH_FR_BUFFER_SIZE"}


def can_run(variables: dict[str, str], usual: dict[str, str]) -> bool:
    """Whether torch is imported alike with these variables as with the usual ones of a test."""
    names = {name for name in {*variables, *usual} if variables.get(name) != usual.get(name)}
    return not any(name.startswith(READ_EARLY) and name not in READ_LATE for name in names)


@contextlib.contextmanager
def started() -> Iterator[str]:
    """Start the process that imports torch; yields the address of its socket, and ends it after that.

    Whoever connects to it has a fork of that process.
    """
    from distparity.worlds.start import new_directory

    folder = new_directory()
    address = f"{folder}/warm"
    # Only that process has the socket: when it has ended, nobody waits for it.
    with socket.socket(*SOCKET) as listener:
        listener.bind(address)
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            # As the fork server is started: one thread of OpenMP, no GPU touched.
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
                MARK: "0" * 16,
            },
        )
    try:
        yield address
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


class Warm:
    """A process that has imported torch, seen from the tests."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(*SOCKET)
        self._socket.connect(address)
        self._last: Started | None = None

    def run(
        self,
        words: list[str],
        cwd: Path,
        variables: dict[str, str],
        timeout: float,
        *,
        together: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """``python -m distparity`` with these words.

        ``together``: its standard error is in its standard output. Raises ``TimeoutExpired`` after
        ``timeout`` seconds, and kills the process.
        """
        started = self.start(words, cwd, variables, together=together)
        texts = started.communicate(timeout)
        return subprocess.CompletedProcess(words, started.returncode, *texts)

    def start(
        self,
        words: list[str],
        cwd: Path,
        variables: dict[str, str],
        *,
        together: bool = True,
        output: IO[bytes] | None = None,
    ) -> Started:
        """Start ``python -m distparity`` with these words; one at a time.

        Its output is in a file that is read at the end, or in ``output``.
        """
        if self._last is not None:
            # Its test has failed.
            self._last.kill()
        out = output or tempfile.TemporaryFile()  # noqa: SIM115  closed by what is started
        err = out if together else tempfile.TemporaryFile()  # noqa: SIM115  likewise
        cores = resource.getrlimit(resource.RLIMIT_CORE)
        request = json.dumps([words, str(cwd), variables, cores]).encode()
        socket.send_fds(self._socket, [request], [out.fileno(), err.fileno()])
        pid = int(self._socket.recv(100))
        self._last = Started(pid, words, (out, err), self._code)
        return self._last

    def _code(self, timeout: float | None) -> int:
        self._socket.settimeout(timeout)
        try:
            code = int(self._socket.recv(100))
        finally:
            self._socket.settimeout(None)
        self._last = None
        return code

    def end(self) -> None:
        self._socket.close()


class Started:
    """A command that runs: of ``subprocess.Popen``, what tests use."""

    def __init__(
        self,
        pid: int,
        words: list[str],
        files: tuple[IO[bytes], IO[bytes]],
        code: Callable[[float | None], int],
    ) -> None:
        self.pid = pid
        self.returncode = 0
        self._words = words
        self._files = files
        self._code = code

    def wait(self, timeout: float) -> int:
        """Wait for its end; kills it if that takes too long."""
        try:
            self.returncode = self._code(timeout)
        except TimeoutError:
            self.kill()
            raise subprocess.TimeoutExpired(self._words, timeout) from None
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Its output and errors, once it has ended; kills it if that takes too long."""
        self.wait(timeout)
        out, err = self._files
        texts = [_read(out), "" if err is out else _read(err)]
        self._close()
        return texts[0], texts[1]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.returncode = self._code(None)
        self._close()

    def _close(self) -> None:
        for file in self._files:
            file.close()


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


# -- in the process that imports torch -------------------------------------------------------------


def main(fd: int) -> None:
    listener = socket.socket(fileno=fd)
    # What `python -m` would have, after the current folder and PYTHONPATH.
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    base = [path for path in sys.path[1:] if path not in given]
    gc.disable()
    from distparity.core import processes

    processes.die_with_parent()
    import distparity
    from distparity.cli import run  # noqa: F401
    from distparity.pytest_plugin import plugin
    from distparity.worker import fork_server

    # pytest would warn that it cannot rewrite the assertions of what is imported already; there are none.
    for module in (distparity, plugin):
        module.__doc__ = f"{module.__doc__} PYTEST_DONT_REWRITE"

    fork_server._preload()
    _import_all([*fork_server.AFTERWARDS, *_LATER])
    # At the end of a fork, torch would take back what it registered.
    for one in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        one.atexit = False
    gc.freeze()
    _use_large_pages()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        channel, _ = listener.accept()
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _serve(channel, base)
            os._exit(0)
        channel.close()


def _import_all(names: list[str]) -> None:
    """Import these modules, and what pytest and a run with all the suite's own plug-ins would import."""
    from _pytest.config import default_plugins

    from distparity import operations, scenarios, strategies

    for package in (scenarios, strategies, operations):
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names += [module.name for module in found]
    for name in [*names, *map("_pytest.{}".format, default_plugins)]:
        importlib.import_module(name)


def _serve(channel: socket.socket, base: list[str]) -> None:
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 2)
        if not request:
            return
        pid = os.fork()
        if not pid:
            channel.close()
            _become(base, descriptors, *json.loads(request))
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(pid).encode())
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def _use_large_pages() -> None:
    """Put this process's memory into pages of 2 MiB, where the kernel can.

    To fork it, and to end a fork of it, then takes a fifth of the time: most of that goes into a hundred
    thousand entries of the page table.
    """
    size = 1 << 21
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, mode, *_, name = [*line.split(), "[]"][:6]
        begin, end = (int(address, 16) for address in where.split("-"))
        begin, end = -(-begin // size) * size, end // size * size
        if mode.startswith("rw") and name in ("[]", "[heap]") and begin < end:
            # The kernel's number for "now"; an older one refuses it.
            advise(begin, end - begin, 25)


def _become(
    base: list[str],
    output: list[int],
    words: list[str],
    cwd: str,
    variables: dict[str, str],
    cores: list[int],
) -> NoReturn:
    """Become ``python -m distparity``, or what that becomes."""
    from distparity import cli
    from distparity.worlds import start

    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nowhere, *output)):
        os.dup2(descriptor, number)
    os.closerange(3, 1000)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    # Somebody may have asked for it while it was another.
    tempfile.tempdir = None
    resource.setrlimit(resource.RLIMIT_CORE, (cores[0], cores[1]))
    path = [part for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [cwd, *path, *base]
    spawn, start.spawn = start.spawn, _fork
    if words[0] == "run":

        def become(_program: str, command: list[str]) -> NoReturn:
            start.spawn = spawn
            _be_pytest(command[2:])

        os.__dict__["execv"] = become
        cli.main(words)
    start.ahead()
    os.execv(sys.executable, [sys.executable, "-m", "distparity", *words])


def _be_pytest(words: list[str]) -> NoReturn:
    """Do what ``python -m`` does with these words in a new process."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        old = getattr(sys, f"__{name}__")
        lines = name == "stderr" or os.isatty(old.fileno())
        file = open(old.fileno(), f"{mode}b", closefd=False)  # noqa: SIM115  open to the end
        new = io.TextIOWrapper(file, old.encoding, old.errors, line_buffering=lines)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    sys.argv = words
    gc.enable()
    code: Any = 1
    try:
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    # As at the end of Python, but for what the end of torch takes.
    for thread in threading.enumerate():
        if not (thread.daemon or thread is threading.current_thread()):
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(int(code or 0))


def _fork(words: list[str], keep: int, output: int, variables: dict[str, str]) -> int:
    """In place of :func:`distparity.worlds.start.spawn`."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(BaseException):
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in range(3, 1000):
            if number != keep:
                with contextlib.suppress(OSError):
                    os.close(number)
        os.environ.clear()
        os.environ.update(variables)
        _mark(variables.get(MARK))
        tempfile.tempdir = None
        sys.path[:] = json.loads(words[1])
        from distparity.worker import fork_server

        fork_server.main(int(words[0]), words[2])
        code = 0
    os._exit(code)


def _mark(value: str | None) -> None:
    """Make others see the run's mark in ``/proc/PID/environ`` of this process and its children.

    There a process has what it was started with, and this one is a fork.
    """
    if value is None:
        return
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = map(int, fields[47:49])
    at = ctypes.string_at(begin, end - begin).index(f"{MARK}=0".encode()) + len(MARK) + 1
    ctypes.memmove(begin + at, value.encode(), 16)


if __name__ == "__main__":
    main(int(sys.argv[1]))
