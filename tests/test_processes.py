"""What a rank does to its own process."""

from __future__ import annotations

import subprocess
import sys

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
