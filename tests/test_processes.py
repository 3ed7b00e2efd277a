"""What a rank does to its own process."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASK = """
import ctypes, faulthandler
from distparity.core import processes
faulthandler.enable()
processes.widen_signal_stack()
before = processes._Stack()
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(before))
print(before.ss_size, before.ss_flags)
"""


def test_handlers_of_fatal_signals_have_room_for_each_other() -> None:
    """Torch's, which unwinds every thread, is called on the stack that faulthandler's runs on."""
    done = subprocess.run([sys.executable, "-c", ASK], stdout=subprocess.PIPE, check=True)
    size, flags = map(int, done.stdout.split())

    assert (size >= 1 << 20, flags) == (True, 0)


def test_a_process_that_sleeps_does_not_want_to_run() -> None:
    asleep = "import time; print(flush=True); time.sleep(60)"
    busy = "print(flush=True)\nwhile True: pass"
    for program, wants in ((asleep, False), (busy, True)):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            script = f"import time, sys; from distparity.core import processes as p; time.sleep(0.3); sys.exit(p.wants_to_run({child.pid}) is not {wants})"
            code = subprocess.run([sys.executable, "-c", script], check=False).returncode
            child.kill()
        assert code == 0


AWAIT = """
import subprocess, sys, time
from distparity.core import processes
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
processes.await_end([child.pid], 0.5)
ended = processes.state(child.pid) == "zombie"
child.kill()
sys.exit(not ended)
"""
#: A program, and whether it has ended when it is no longer waited for: 0.5 s, or ten times that. How much
#: of a core it gets in that time is the machine's matter.
AWAITED = {
    "sleeps": ("import time; print(flush=True); time.sleep(60)", False),
    "works": (
        "import time; print(flush=True)\nend = time.monotonic() + 0.8\nwhile time.monotonic() < end: pass",
        True,
    ),
    "never ends": ("print(flush=True)\nwhile True: pass", False),
}


@pytest.mark.parametrize(("program", "ended"), AWAITED.values(), ids=AWAITED)
def test_who_works_has_more_time_to_end(program: str, ended: bool) -> None:
    done = subprocess.run([sys.executable, "-c", AWAIT, program], check=False)

    assert (done.returncode == 0) is ended


SHARE = """
import os, signal, time
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace
from distparity.core import processes
from distparity.worker.fork_server import _Server

processes.adopt_orphans()
name = f"of-{os.getpid()}"
rank = os.fork()
if rank == 0:
    memory = shared_memory.SharedMemory(name, create=True, size=64)
    if os.fork() == 0:
        time.sleep(60)  # has the pipe at whose end its parent's memory is removed
    os.kill(os.getpid(), signal.SIGKILL)
os.waitid(os.P_PID, rank, os.WEXITED)
_Server._kill_orphans(SimpleNamespace(ranks=[], began=time.time()))
os._exit(Path("/dev/shm", name).exists())
"""


def test_what_removes_shared_memory_does_so_before_it_is_killed() -> None:
    assert subprocess.run([sys.executable, "-c", SHARE], check=False).returncode == 0
