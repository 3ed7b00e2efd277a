"""Linux's view of processes: who is a child, who is stopped, who dies with whom."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "ORPHANED",
    "STACK_REPORT",
    "adopt_orphans",
    "await_end",
    "children",
    "describe_exit",
    "die_with_parent",
    "have_children",
    "hear_of_parents_end",
    "memory_kills",
    "offer_to_memory_killer",
    "outlive_parent",
    "session",
    "signal_main_thread",
    "state",
    "tidies_up",
    "wants_to_run",
    "widen_signal_stack",
]

#: What asks a rank's stack reporter. Not one of the two for users: torch's handlers use SIGUSR2.
STACK_REPORT = signal.SIGRTMIN + 3
#: What the kernel tells a process of its parent's end.
ORPHANED = signal.SIGRTMIN + 4

#: How many times as long a process may take that waits for its turn.
BUSY = 10
#: Of /proc/PID/stat, what comes after the command.
_PARENT, _SESSION = 1, 3
#: Python's. Torch's takes seconds until it sees that nobody is left.
_TIDY = b"multiprocessing.resource_tracker"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def hear_of_parents_end() -> None:
    """Have the kernel send :data:`ORPHANED` when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, ORPHANED)


def outlive_parent() -> None:
    """Undo :func:`hear_of_parents_end`."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none can get away."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


class _Stack(ctypes.Structure):
    """The kernel's ``stack_t``."""

    _fields_ = (
        ("ss_sp", ctypes.c_void_p),
        ("ss_flags", ctypes.c_int),
        ("ss_size", ctypes.c_size_t),
    )


def widen_signal_stack(size: int = 1 << 20) -> None:
    """Have this thread's handlers of fatal signals run on a stack of ``size`` bytes.

    Python's faulthandler makes one of some 16 KiB for itself. What it hands the signal on to runs
    there as well: torch's handler, which writes native stacks and needs more, would write over
    whatever memory lies below. Call it after ``faulthandler.enable()``, which puts its own in place.
    """
    # Never unmapped: a signal may come as long as the process lives.
    memory = mmap.mmap(-1, size)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _SIGNAL_STACKS.append(memory)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigaltstack(ctypes.byref(_Stack(start, 0, size)), None) != 0:
        raise OSError(ctypes.get_errno(), "sigaltstack")


_SIGNAL_STACKS: list[mmap.mmap] = []


def have_children() -> bool:
    """True when this process has a child, running or not yet waited for; one system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def offer_to_memory_killer() -> None:
    """Have the kernel, when memory runs out, kill this process before the ones that look after it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def children() -> list[int]:
    """Process ids of this process's own children, zombies included."""
    return _where(_PARENT, os.getpid())


def session(leader: int) -> list[int]:
    """Process ids of all that are in a session, its leader included."""
    return _where(_SESSION, leader)


def _where(field: int, value: int) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The command in parentheses may itself hold spaces and parentheses.
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[field]) == value:
                    found.append(int(path.name))
    return found


def tidies_up(pid: int) -> bool:
    """True for a process that removes the shared memory of others when these have ended."""
    try:
        return _TIDY in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def await_end(pids: Iterable[int], limit: float) -> None:
    """Wait until these processes have ended, for at most so many seconds.

    One that is ready to run and does not come to it, on a busy machine, has :data:`BUSY` times that.
    """
    began = time.monotonic()
    for pid in pids:
        running = True
        while state(pid) not in ("gone", "zombie"):
            took = time.monotonic() - began
            before, running = running, took < limit or wants_to_run(pid)
            if took > BUSY * limit or not (before or running):
                break
            time.sleep(0.005)


def signal_main_thread(pid: int, number: int) -> None:
    """Send a signal to a process's main thread; raises ``ProcessLookupError``.

    One that is sent to the process as a whole may be handled by any thread, and when a stopped
    process goes on the main thread has left its place by then.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "tgkill"):
        # A C library from before 2018.
        os.kill(pid, number)
    elif libc.tgkill(pid, pid, number) != 0:
        raise OSError(ctypes.get_errno(), "tgkill")


def state(pid: int) -> str:
    """The kernel's one-word state of a process ("stopped", "sleeping", ...), "gone" when none."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("State:"):
                return line.partition("(")[2].rstrip(")") or "unknown"
    except OSError:
        pass
    return "gone"


def wants_to_run(pid: int) -> bool:
    """Whether a thread of a process runs, or waits for nothing but its turn on a busy machine."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False
    for thread in threads:
        with contextlib.suppress(OSError):
            # The state stands behind the command, which may have brackets in it.
            if (thread / "stat").read_text().rpartition(")")[2].split()[0] in ("R", "D"):
                return True
    return False


def describe_exit(status: int) -> str:
    """A wait status in words: ``exited with code 3``, ``killed by SIGKILL``."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exited with code {os.WEXITSTATUS(status)}"
