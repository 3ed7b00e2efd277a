"""Runs of the suite whose fork server is forked from a process that has imported torch already.

A run of one case takes four seconds of CPU time, more than two of them for importing torch, and the
tests make hundreds. Here, one process imports torch. For each run it forks a process that starts a fork
server, by forking again, and then becomes the command, as ``distparity run`` becomes pytest. All else is
as always: the fork server is a child of the controller, which takes it over if the circumstances are
alike.
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


def can_run(variables: dict[str, str], usual: dict[str, str]) -> bool:
    """Whether torch is imported alike with these variables as with the usual ones of a test."""
    names = {name for name in {*variables, *usual} if variables.get(name) != usual.get(name)}
    return not any(name.startswith(READ_EARLY) for name in names)


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
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            request = json.dumps([words, str(cwd), variables]).encode()
            files = [out.fileno(), (out if together else err).fileno()]
            socket.send_fds(self._socket, [request], files)
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
            out.seek(0)
            err.seek(0)
            texts = [file.read().decode() for file in (out, err)]
            return subprocess.CompletedProcess(words, code, *texts)

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


def _become(
    base: list[str], output: list[int], words: list[str], cwd: str, variables: dict[str, str]
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
    path = [part for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [cwd, *path, *base]
    if words[0] == "run":
        cli.main(words)
    start.ahead()
    os.execv(sys.executable, [sys.executable, "-m", "distparity", *words])


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
