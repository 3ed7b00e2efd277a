"""Runs of the suite whose fork server is forked from a process that has imported torch already.

A run of one case takes four seconds of CPU time, more than two of them for importing torch, and the
tests make hundreds. Here, one process imports torch. For each run it forks a process that starts a fork
server, by forking again, and then becomes pytest, as ``distparity run`` does. All else is as always: the
fork server is a child of the controller, which takes it over if the circumstances are alike.

:func:`can_run` names the runs that must not be started this way.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

#: Torch and Python read variables of these names while they are imported or started.
READ_EARLY = ("KINETO", "LD_", "MKL_", "OMP_", "PYTHON", "PYTORCH", "TORCH")


def can_run(variables: dict[str, str]) -> bool:
    """Whether torch is imported alike with these variables as with those of this process."""
    here = os.environ
    names = {name for name in {*variables, *here} if variables.get(name) != here.get(name)}
    return not any(name.startswith(READ_EARLY) for name in names - {"PYTHONPATH"})


class Warm:
    """The process that has imported torch, seen from the tests."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # As the fork server is started: one thread of OpenMP, no GPU touched.
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
            )
        self._socket = ours

    def run(
        self, words: list[str], cwd: Path, variables: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """``distparity run`` with these words; its standard error is in ``stdout``.

        Raises ``TimeoutExpired`` after ``timeout`` seconds, and kills the controller.
        """
        with tempfile.TemporaryFile() as file:
            request = json.dumps([words, str(cwd), variables]).encode()
            socket.send_fds(self._socket, [request], [file.fileno()])
            pid = int(self._socket.recv(100))
            self._socket.settimeout(timeout)
            try:
                code = int(self._socket.recv(100))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._socket.settimeout(None)
                self._socket.recv(100)
                raise subprocess.TimeoutExpired(words, timeout) from None
            self._socket.settimeout(None)
            file.seek(0)
            return subprocess.CompletedProcess(words, code, file.read().decode())

    def end(self) -> None:
        self._socket.close()
        self._process.wait()


# -- in the process that imports torch -------------------------------------------------------------


def main(fd: int) -> None:
    channel = socket.socket(fileno=fd)
    # What `python -m` would have, after the current folder and PYTHONPATH.
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    base = [path for path in sys.path[1:] if path not in given]
    gc.disable()
    from distparity.worker import fork_server
    from distparity.worlds import start

    fork_server._preload()
    for name in fork_server.AFTERWARDS:
        importlib.import_module(name)
    gc.freeze()
    start.spawn = _fork
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 1)
        if not request:
            return
        pid = os.fork()
        if not pid:
            channel.close()
            _become(base, descriptors[0], *json.loads(request))
        os.close(descriptors[0])
        channel.send(str(pid).encode())
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def _become(
    base: list[str], output: int, words: list[str], cwd: str, variables: dict[str, str]
) -> NoReturn:
    """Become ``python -m distparity run``."""
    from distparity import cli

    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nowhere, output, output)):
        os.dup2(descriptor, number)
    os.closerange(3, 1000)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    path = [part for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [cwd, *path, *base]
    cli.main(["run", *words])
    raise AssertionError("it has not become pytest")


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
        # Somebody may have asked for it while it was another.
        tempfile.tempdir = None
        sys.path[:] = json.loads(words[1])
        from distparity.worker import fork_server

        fork_server.main(int(words[0]), words[2])
        code = 0
    os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))
