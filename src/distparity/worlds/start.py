"""Start the fork server: from the launcher, or ahead of pytest.

``distparity run`` replaces its own process by pytest, which takes a while to start. Torch is needed
in any case, so the fork server is started first, as a child of the process that becomes pytest. The
launcher takes it over if the circumstances of its start still hold. Otherwise the fork server ends
with that process, and its directory is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

__all__ = [
    "ForkServer",
    "ahead",
    "new_directory",
    "open_standard_streams",
    "output",
    "spawn",
    "start",
    "take",
    "write_report",
]

#: The variable by which one program tells the next program in the same process what was started.
VARIABLE = "DISTPARITY_STARTED_AHEAD"
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from distparity.worker import fork_server
fork_server.main(int(sys.argv[1]), sys.argv[3])
"""
_WRITE_REPORT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from distparity.results import junit_writer
junit_writer.write_from_journal(sys.argv[2])
"""


def write_report() -> list[str]:
    """The command that makes XML from a side file; append the side file's path."""
    return [sys.executable, "-c", _WRITE_REPORT, json.dumps(sys.path)]


class ForkServer:
    """The fork server: a child process that imports torch.

    ``directory`` is the run's own directory for temporary files. ``channel`` is the file descriptor
    of our end of the socket on which the fork server answers.
    """

    def __init__(self, pid: int, channel: int, directory: str) -> None:
        self.pid = pid
        self.channel = channel
        self.directory = directory
        self._code: int | None = None

    def wait(self, limit: float | None = None) -> int:
        """Wait for its end, at most ``limit`` seconds; returns the exit code or the negative signal.

        Raises ``TimeoutError``.
        """
        until = None if limit is None else time.monotonic() + limit
        while self._code is None:
            pid, status = os.waitpid(self.pid, 0 if until is None else os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif until is not None and time.monotonic() > until:
                raise TimeoutError(f"process {self.pid} has not ended within {limit:g} s")
            else:
                time.sleep(0.002)
        return self._code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def discard(self) -> None:
        """End it, and remove its directory."""
        self.kill()
        self.wait()
        os.close(self.channel)
        shutil.rmtree(self.directory, ignore_errors=True)


def output(directory: str) -> str:
    """The path of the file with the output of the fork server of this directory."""
    return os.path.join(directory, "fork-server")


def new_directory() -> str:
    """A directory of this user's, whose path is short enough for a socket in it."""
    # A socket's path has at most 107 bytes.
    base = tempfile.gettempdir()
    base = base if len(base) < 60 else "/tmp"  # noqa: S108  mkdtemp makes it private
    return tempfile.mkdtemp(prefix="distparity-", dir=base)


def start(directory: str | None = None, path: list[str] | None = None) -> ForkServer:
    """Start a fork server, in a new directory or in ``directory``, with ``path`` or this process's own.

    Until it is set up, it ends with the thread that calls this.
    """
    if directory is None:
        directory = new_directory()
    scratch = os.path.join(directory, "scratch")
    # A rank may have removed the directory before the fork server died.
    Path(directory).mkdir(mode=0o700, exist_ok=True)
    Path(scratch).mkdir(exist_ok=True)
    ours, theirs = socket.socketpair()
    words = [str(theirs.fileno()), json.dumps(path or _path()), directory]
    # Create a new file: when the fork server is restarted, a rank may have put a pipe or somebody
    # else's file in this place.
    Path(output(directory)).unlink(missing_ok=True)
    variables = {
        # Keep what torch compiles until the end of the run, for all ranks.
        "TORCHINDUCTOR_CACHE_DIR": os.path.join(scratch, "compiled"),
        **os.environ,
        "OMP_NUM_THREADS": "1",
        # A process that has initialised CUDA cannot be forked. Checking whether there is a
        # GPU would initialise it; with this setting, torch asks NVML instead.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "TMPDIR": scratch,
    }
    with theirs, Path(output(directory)).open("xb") as file:
        pid = spawn(words, theirs.fileno(), file.fileno(), variables)
    return ForkServer(pid, ours.detach(), directory)


def _path() -> list[str]:
    """Where this process imports from, and this folder, which has the user's own modules.

    ``python -m`` has it already, and a command's script has not.
    """
    here = str(Path.cwd())
    known = getattr(sys.flags, "safe_path", False) or here in sys.path or "" in sys.path
    return sys.path if known else [*sys.path, here]


def spawn(words: list[str], keep: int, output: int, variables: dict[str, str]) -> int:
    """Start the fork server's process; returns its process id.

    Of the descriptors, it has ``keep`` and ``output``, which is its standard output and error.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _BOOT, *words],
        pass_fds=[keep],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C on the terminal goes only to the controller, which ends the others in order.
        start_new_session=True,
        env=variables,
    )
    # Keep only its process id, as the next program in this process will know only that.
    process.returncode = 0
    return process.pid


def open_standard_streams() -> None:
    """Open descriptors 0 to 2 if they are closed: a file that got such a number would be used as
    standard output in every rank.
    """
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(file, True)
    os.close(file)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            # Python had none to open.
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def ahead() -> None:
    """Start a fork server for the program that this process will become (``python -m ...``)."""
    safe = getattr(sys.flags, "safe_path", False)
    path = sys.path if safe else [str(Path.cwd()), *sys.path[1:]]
    found = start(path=path)
    os.set_inheritable(found.channel, True)
    known = [found.pid, found.channel, found.directory, _circumstances(path)]
    os.environ[VARIABLE] = json.dumps(known)


def take() -> ForkServer:
    """The fork server that was started ahead, if a new one would be the same; else a new one."""
    said = os.environ.pop(VARIABLE, None)
    if said is None:
        return start()
    pid, channel, directory, circumstances = json.loads(said)
    if not _is_child(pid):
        # The variable was meant for another process.
        return start()
    found = ForkServer(pid, channel, directory)
    if circumstances != _circumstances(sys.path):
        found.discard()
        return start()
    os.set_inheritable(channel, False)
    return found


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _circumstances(path: list[str]) -> int:
    """A hash of the circumstances on which a process's imports depend."""
    variables = sorted(item for item in os.environ.items() if not item[0].startswith("PYTEST_"))
    return zlib.crc32(repr((variables, path, Path.cwd())).encode("utf-8", "surrogateescape"))
