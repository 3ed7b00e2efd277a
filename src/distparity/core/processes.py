"""Linux processes: children, states, signals, and processes that end with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = [
    "ORPHANED",
    "STACK_REPORT",
    "adopt_orphans",
    "await_end",
    "children",
    "crowd",
    "describe_exit",
    "die_with_parent",
    "have_children",
    "hear_of_parents_end",
    "keep_freed_memory",
    "local",
    "memory",
    "memory_kills",
    "node_of",
    "offer_to_memory_killer",
    "on_node",
    "outlive_parent",
    "session",
    "signal_main_thread",
    "state",
    "tidies_up",
    "wants_to_run",
    "widen_signal_stack",
]

#: The signal to a rank's stack reporter. Not a user signal, because torch's handlers use SIGUSR2.
STACK_REPORT = signal.SIGRTMIN + 3
#: The signal that the kernel sends when the parent ends.
ORPHANED = signal.SIGRTMIN + 4

#: The factor on time limits for a process that waits for a CPU.
BUSY = 10
#: Python's process that removes shared memory. torch's takes seconds to see that its users have ended.
_TIDY = b"multiprocessing.resource_tracker"
#: Process ids have fewer bits than this.
_NODE = 32
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def on_node(number: int, pid: int) -> int:
    """An id for a process of another machine, which no process of this machine has.

    ``number`` is the machine's node; on node 0, which is this machine, it is the process id itself.
    """
    return number << _NODE | pid


def node_of(pid: int) -> int:
    """The node of an id that :func:`on_node` made."""
    return pid >> _NODE


def local(pid: int) -> int:
    """The process id on its own machine."""
    return pid & ((1 << _NODE) - 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def die_with_parent() -> None:
    """Make the kernel kill this process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def hear_of_parents_end() -> None:
    """Make the kernel send :data:`ORPHANED` when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, ORPHANED)


def outlive_parent() -> None:
    """Undo :func:`hear_of_parents_end`."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none can escape."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


class _Stack(ctypes.Structure):
    """The kernel's ``stack_t``."""

    _fields_ = (
        ("ss_sp", ctypes.c_void_p),
        ("ss_flags", ctypes.c_int),
        ("ss_size", ctypes.c_size_t),
    )


def widen_signal_stack(size: int = 1 << 20) -> None:
    """Make this thread's handlers of fatal signals run on a stack of ``size`` bytes.

    Python's faulthandler installs a stack of about 16 KiB. torch's handler, which faulthandler calls
    next, runs on the same stack. It writes native stacks, needs more space, and would overwrite the
    memory below. Call this after ``faulthandler.enable()``, which installs its own stack.
    """
    # Never unmapped, because a signal may come until the process ends.
    memory = mmap.mmap(-1, size)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _SIGNAL_STACKS.append(memory)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigaltstack(ctypes.byref(_Stack(start, 0, size)), None) != 0:
        raise OSError(ctypes.get_errno(), "sigaltstack")


_SIGNAL_STACKS: list[mmap.mmap] = []


def memory() -> int:
    """The machine's memory in bytes; 0 if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def keep_freed_memory(most: int = 1 << 30) -> None:
    """Make the C library keep freed memory, up to ``most`` bytes, for the next allocation.

    By default it gives every block of more than 32 MiB back, and the kernel clears each page of the next
    one. With tensors of that size, this takes two thirds of a judge's time. Does nothing where the C
    library is not glibc.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, most)
        libc.mallopt(trim_threshold, most)


def have_children() -> bool:
    """Whether this process has a child, running or not yet waited for; one system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def offer_to_memory_killer() -> None:
    """Make the kernel kill this process first, before the controller, if memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def memory_kills() -> int:
    """The number of processes that the kernel has killed since it started because memory ran out."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def children() -> list[int]:
    """The process ids of this process's children, including zombies."""
    return _where(_parent, os.getpid())


def session(leader: int) -> list[int]:
    """The process ids of all processes in a session, including its leader."""
    # A system call, and no file: a fork server asks for every rank that ends.
    return _where(os.getsid, leader)


def _where(what: Callable[[int], int], value: int) -> list[int]:
    found = []
    for pid in (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if what(pid) == value:
                found.append(pid)
    return found


def _parent(pid: int) -> int:
    # The command in parentheses may itself contain spaces and parentheses.
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def tidies_up(pid: int) -> bool:
    """Whether a process is a helper that removes shared memory after its users have ended."""
    try:
        return _TIDY in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def await_end(pids: Iterable[int], limit: float) -> None:
    """Wait until these processes have ended, at most ``limit`` seconds.

    A process that is ready to run but gets no CPU on a busy machine has :data:`BUSY` times that.
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

    A signal to the whole process may be handled by any thread. When a stopped process continues, the
    main thread would have moved on by then.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "tgkill"):
        # A C library from before 2018.
        os.kill(pid, number)
    elif libc.tgkill(pid, pid, number) != 0:
        raise OSError(ctypes.get_errno(), "tgkill")


def state(pid: int) -> str:
    """The kernel's word for the state of a process ("stopped", "sleeping", ...); "gone" if none."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("State:"):
                return line.partition("(")[2].rstrip(")") or "unknown"
    except OSError:
        pass
    return "gone"


def wants_to_run(pid: int, *, main: bool = True) -> bool:
    """Whether a thread of a process is running, or ready to run and waiting only for a CPU.

    Without ``main``, only threads other than the main thread count.
    """
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False
    for thread in threads:
        if not main and thread.name == str(pid):
            continue
        with contextlib.suppress(OSError):
            # The state follows the command, which may contain parentheses.
            if (thread / "stat").read_text().rpartition(")")[2].split()[0] in ("R", "D"):
                return True
    return False


def crowd() -> float:
    """How many threads of this machine want to run, for each CPU of this process; at least 1."""
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1.0
    return max(1.0, running / len(os.sched_getaffinity(0)))


def describe_exit(status: int) -> str:
    """A wait status in words: ``exited with code 3``, ``killed by SIGKILL``."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exited with code {os.WEXITSTATUS(status)}"
