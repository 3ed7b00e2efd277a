"""Strategies that misbehave for real, each on chosen ranks in the middle of its training.

Given to a run with ``--include injected``; every class with a ``name`` becomes a case.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address
from multiprocessing import shared_memory
from pathlib import Path
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import nn

from distparity.core import processes
from distparity.devices.context import RankContext
from distparity.strategies import Tensors
from distparity.strategies.ddp import Ddp

FOREVER = 3600
HERE = str(Path.cwd())
LEFT = "INJECTED_LEFT_BEHIND"


def _let_others_run() -> None:
    """Before a rank spins until its time is over: it would take half of the machine from the tests."""
    os.nice(5)
    # Where each session has its share of the machine, what counts is how nice the session is.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("5")


class Fault(Ddp):
    """Trains as DDP does; in the gradients of step :attr:`step`, ranks misbehave."""

    title = "an injected fault"
    step: ClassVar[int] = 1

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        self.context = context
        self.steps = 0
        return super().wrap(model, units, context)

    def gradients(self, model: nn.Module) -> Tensors:
        if self.steps == self.step:
            if self.guilty():
                self._tell_when()
                self.misbehave()
            else:
                self.behave()
        self.steps += 1
        return super().gradients(model)

    def _tell_when(self) -> None:
        folder = os.environ.get("INJECTED_TIMES")
        if folder:
            path = Path(folder, f"{self.name}-ws{self.context.world_size}-{self.context.rank}")
            path.write_text(str(time.time()))

    def guilty(self) -> bool:
        """The last rank is, unless a fault says otherwise."""
        return self.context.rank == self.context.world_size - 1

    def misbehave(self) -> None:
        raise NotImplementedError

    def behave(self) -> None:
        """What the other ranks do at the same time."""


class RaiseOne(Fault):
    name = "fault-raise-one"

    def misbehave(self) -> None:
        print("the last words of a rank")
        raise ValueError("injected")


class RaiseAll(RaiseOne):
    name = "fault-raise-all"

    def guilty(self) -> bool:
        return True


class RaiseAllButOne(RaiseOne):
    name = "fault-raise-all-but-one"

    def guilty(self) -> bool:
        return self.context.rank > 0


class Unspeakable(Fault):
    name = "fault-raise-unspeakable"

    def misbehave(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        raise Mute


class Exit3(Fault):
    name = "fault-exit-3"

    def misbehave(self) -> None:
        os._exit(3)


class SysExit(Fault):
    name = "fault-sys-exit-0"

    def misbehave(self) -> None:
        sys.exit(0)


class Kill(Fault):
    name = "fault-sigkill"

    def misbehave(self) -> None:
        # What a rank that dies like this may leave in shared memory.
        Path(f"/dev/shm/torch_{os.getpid()}_{os.environ['SUITE_MARK']}").write_bytes(b"left")
        os.kill(os.getpid(), signal.SIGKILL)


class KillShared(Fault):
    """Shared memory of a rank and of its child, by Python and by torch, at the end of the time limit."""

    name = "fault-sigkill-shared-memory"

    def misbehave(self) -> None:
        name = f"{os.environ['SUITE_MARK']}-{os.getpid()}"
        self.memory = shared_memory.SharedMemory(name, create=True, size=64)
        torch.multiprocessing.set_sharing_strategy("file_system")
        self.kept = torch.ones(1000).share_memory_()
        if os.fork() == 0:
            self.more = torch.ones(1000).share_memory_()
            time.sleep(FOREVER)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)


class Signalled(Fault):
    """Gets a signal that means nothing to it, as a batch system sends it, and goes on."""

    name = "fault-sigusr1"

    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(1)


class SignalledAndSpins(Signalled):
    """What the signal had written is not where it hangs."""

    name = "fault-sigusr1-endless-loop"

    def misbehave(self) -> None:
        super().misbehave()
        self.spin()

    def spin(self) -> None:
        _let_others_run()
        while True:
            pass


class DeepStack(Fault):
    """Its stack report cannot be parsed."""

    name = "fault-deep-stack"

    def misbehave(self) -> None:
        path = str(Path("/proc/self/fd/1").readlink())
        threading.Thread(target=self._write, args=(f"{path}.where",), daemon=True).start()
        time.sleep(FOREVER)

    def _write(self, path: str) -> None:
        while True:
            Path(path).write_text("[" * 200_000)
            time.sleep(0.01)


class KillsParent(Fault):
    name = "fault-kills-parent"

    def misbehave(self) -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        # A process takes its time to die, and its children live as long.
        time.sleep(FOREVER)


class ReplacesFiles(Fault):
    """Puts something else in the place of the files that are read of it, and hangs."""

    name = "fault-output-is-a-pipe"

    def misbehave(self) -> None:
        path = Path("/proc/self/fd/1").readlink()
        for end in ("", ".stacks", ".where"):
            file = Path(f"{path}{end}")
            file.unlink(missing_ok=True)
            self.replace(file)
        time.sleep(FOREVER)

    def replace(self, file: Path) -> None:
        os.mkfifo(file)


class LinksFiles(ReplacesFiles):
    name = "fault-output-is-a-link"

    def replace(self, file: Path) -> None:
        file.symlink_to("/dev/zero")


class RemovesPlace(Fault):
    """Removes the folder in which the run has its socket, and its ranks their files."""

    name = "fault-removes-place"

    def misbehave(self) -> None:
        shutil.rmtree(Path("/proc/self/fd/1").readlink().parent)
        raise ValueError("injected")


class StopsParent(Fault):
    name = "fault-stops-parent"

    def misbehave(self) -> None:
        os.kill(os.getppid(), signal.SIGSTOP)
        # Long enough to be seen, and less than the limit.
        time.sleep(4)


class LeavesOrphans(Fault):
    """Ends the fork server, and leaves behind what the kernel does not end with it."""

    name = "fault-kills-parent-leaving"

    def misbehave(self) -> None:
        parent = os.getppid()
        if os.fork() == 0:
            os.setsid()
            time.sleep(FOREVER)
        if os.getuid() == 0 and os.fork() == 0:
            os.setuid(65534)
            time.sleep(FOREVER)
        os.kill(parent, signal.SIGKILL)
        if os.getuid() == 0:
            # The kernel forgets with whom a process ends that becomes another user's.
            os.setuid(65534)
        time.sleep(FOREVER)


class Segv(Fault):
    name = "fault-sigsegv"

    def misbehave(self) -> None:
        ctypes.string_at(0)


class SegvAndStays(Fault):
    """Has a thread that takes no signal, as drivers have: who asks it for its stack waits."""

    name = "fault-sigsegv-and-stays"

    def misbehave(self) -> None:
        deaf = threading.Thread(target=self._sleep)
        deaf.start()
        time.sleep(0.1)
        ctypes.string_at(0)

    def _sleep(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(FOREVER)


class Stop(Fault):
    name = "fault-sigstop"

    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


class Spin(Fault):
    name = "fault-endless-loop"

    def misbehave(self) -> None:
        _let_others_run()
        while True:
            pass


class Reference(Fault):
    name = "fault-native-with-gil"

    def misbehave(self) -> None:
        thread = threading.Thread(target=ctypes.PyDLL(None).sleep, args=(FOREVER,))
        thread.start()
        time.sleep(FOREVER)


class Mismatch(Fault):
    #: The last one: nothing comes after it that could fail for another reason.
    step = 2

    def behave(self) -> None:
        dist.all_reduce(torch.ones(8))


class Skip(Mismatch):
    name = "fault-skip-collective"

    def misbehave(self) -> None:
        pass


class OtherCollective(Mismatch):
    name = "fault-other-collective"

    def misbehave(self) -> None:
        dist.broadcast(torch.ones(8), src=self.context.rank)
        dist.barrier()


class OtherShape(Mismatch):
    name = "fault-other-shape"

    def misbehave(self) -> None:
        dist.all_reduce(torch.ones(100_000))


class MemoryLimit(Fault):
    name = "fault-memory-limit"

    def misbehave(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        kept = torch.ones(1 << 20)
        while True:
            kept = torch.cat([kept, kept])


class MemoryKill(Fault):
    """The kernel's own killer where a memory cgroup can be made, else what it sends."""

    name = "fault-memory-killer"

    def misbehave(self) -> None:
        group = Path(f"/sys/fs/cgroup/memory/injected-{os.getpid()}")
        with contextlib.suppress(OSError):
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(64 << 20))
            (group / "cgroup.procs").write_text(str(os.getpid()))
            _ = [bytearray(os.urandom(1 << 20)) for _ in range(100)]
        os.kill(os.getpid(), signal.SIGKILL)


class Loud(Fault):
    """200 MB on stdout and rubbish on stderr, from every rank; and yet it is right."""

    name = "fault-loud"

    def guilty(self) -> bool:
        return True

    def misbehave(self) -> None:
        block = b"loud " * 200_000
        for _ in range(200):
            os.write(1, block)
        os.write(2, bytes(range(256)) * 4)


class LoudAndFails(Loud):
    name = "fault-loud-raise"

    def misbehave(self) -> None:
        super().misbehave()
        raise ValueError("injected \x00\x1b[31m\ud800")


class PortTaken(Fault):
    name = "fault-port-taken"

    def misbehave(self) -> None:
        taken = socket.create_server(("127.0.0.1", 0))
        dist.TCPStore("127.0.0.1", taken.getsockname()[1], is_master=True)


# -- right by itself, and leaves something behind ------------------------------------------------


class Leaves(Fault):
    """Correct, but it changes every rank's process and does not restore it."""

    def guilty(self) -> bool:
        return True


class LeavesStdoutClosed(Leaves):
    name = "fault-leaves-stdout-closed"

    def misbehave(self) -> None:
        sys.stdout.close()
        os.close(1)


class LeavesChildren(Leaves):
    name = "fault-leaves-children"

    def misbehave(self) -> None:
        if os.fork() == 0:
            time.sleep(FOREVER)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(FOREVER)
            os._exit(0)


class LeavesEnvironment(Leaves):
    name = "fault-leaves-environment"

    def misbehave(self) -> None:
        os.environ[LEFT] = "value"


class LeavesDirectory(Leaves):
    name = "fault-leaves-directory"

    def misbehave(self) -> None:
        os.chdir("/")


class LeavesDtype(Leaves):
    name = "fault-leaves-dtype"
    step = 2

    def misbehave(self) -> None:
        torch.set_default_dtype(torch.float16)


class LeavesDevice(Leaves):
    name = "fault-leaves-device"
    step = 2

    def misbehave(self) -> None:
        torch.set_default_device("meta")


class LeavesGenerators(Leaves):
    name = "fault-leaves-generators"

    def misbehave(self) -> None:
        random.seed(LEFT)


class LeavesThreads(Leaves):
    name = "fault-leaves-threads"

    def misbehave(self) -> None:
        torch.set_num_threads(2)
        threading.Thread(target=time.sleep, args=(FOREVER,), name="left", daemon=True).start()


class LeavesModes(Leaves):
    name = "fault-leaves-modes"
    step = 2

    def misbehave(self) -> None:
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)


class LeavesAutograd(Leaves):
    name = "fault-leaves-autograd"
    step = 2

    def misbehave(self) -> None:
        torch.autograd.set_multithreading_enabled(False)


class LeavesHooks(Leaves):
    name = "fault-leaves-hooks"
    step = 2

    def misbehave(self) -> None:
        nn.modules.module.register_module_forward_hook(lambda *_: None)


class LeavesDenormals(Leaves):
    name = "fault-leaves-denormals"
    step = 2

    def misbehave(self) -> None:
        torch.set_flush_denormal(True)


class LeavesLimits(Leaves):
    name = "fault-leaves-limits"

    def misbehave(self) -> None:
        os.umask(0o777)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _pristine() -> dict[str, bool]:
    """What must hold at the beginning of a case."""
    seeded = random.Random(LEFT).getstate()
    mask = os.umask(0o077)
    os.umask(mask)
    return {
        "stdout": not sys.stdout.closed and os.fstat(1).st_ino == os.fstat(2).st_ino,
        "environment": LEFT not in os.environ,
        "directory": str(Path.cwd()) == HERE,
        "dtype": torch.get_default_dtype() is torch.float32,
        "device": torch.empty(0).device.type == "cpu",
        "generators": random.getstate() != seeded,
        "threads": torch.get_num_threads() == 1,
        "no thread": all(thread.name != "left" for thread in threading.enumerate()),
        "children": not processes.have_children(),
        "autograd": torch.is_grad_enabled(),
        "algorithms": not torch.are_deterministic_algorithms_enabled(),
        "multithreading": torch._C._is_multithreading_enabled(),
        "hooks": not nn.modules.module._global_forward_hooks,
        "denormals": torch.tensor([1e-310], dtype=torch.float64).mul(2.0).item() > 0.0,
        "umask": mask != 0o777,
        "alarm": signal.getsignal(signal.SIGALRM) is signal.SIG_DFL,
    }


class _Check(Ddp):
    """Fails where it finds what another case left behind."""

    title = "looks for what others left behind"

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        dirty = [name for name, clean in _pristine().items() if not clean]
        if dirty:
            raise AssertionError(f"left behind by another case: {', '.join(dirty)}")
        return super().wrap(model, units, context)


#: One after each case that leaves something behind.
CHECKS = [
    type(kind.__name__ + "Check", (_Check,), {"name": f"{kind.name}-check"})
    for kind in Leaves.__subclasses__()
]


class Flaky(Fault):
    """Fails where it has not been before: a file says so. Never passes in the process it failed in."""

    name = "fault-flaky"
    failed_here: ClassVar[bool] = False

    def misbehave(self) -> None:
        memory = Path(f"{os.environ['INJECTED_MEMORY']}-{self.name}")
        if Flaky.failed_here or not memory.exists():
            memory.write_text("been here")
            Flaky.failed_here = True
            self.fail()

    def fail(self) -> None:
        raise ValueError("injected, the first time")


class FlakyCrash(Flaky):
    name = "fault-flaky-crash"

    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Blab(Fault):
    """Tells all it knows."""

    name = "fault-blab"

    def misbehave(self) -> None:
        print(os.environ)
        raise ValueError(dict(os.environ))


class BlabCut(Fault):
    """Says a secret in such a place that what is reported of it begins, or ends, in its middle."""

    name = "fault-blab-cut"

    def misbehave(self) -> None:
        secret = os.environ["BLAB_TOKEN"]
        print(secret + "." * (8192 - len(secret) // 2), end="", flush=True)
        raise ValueError("x" * (240 - len("raised ValueError: ") - len(secret) // 2) + secret)


class Harassed(Fault):
    """A stranger finds every socket on which the world's ranks listen, and talks rubbish there.

    Fails where one of them listens on more than loopback.
    """

    name = "fault-harassed"

    def behave(self) -> None:
        _world()

    def misbehave(self) -> None:
        found = _listening(_world())
        exposed = [address for address in found if not ip_address(address[0]).is_loopback]
        if exposed or not found:
            raise AssertionError(f"listening on {found}")
        # Kept open: some say nothing, and stay.
        self.strangers = [_stranger(address, words) for address in found for words in RUBBISH]


RUBBISH = (
    b"",
    b"\0",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xff" * 4096,
    # What torch's store takes for the beginning of a conversation, and then nonsense.
    b"\x09\x3c\x85\xf7\xce" + b"\xff" * 64,
    bytes(range(256)) * 64,
)


def _world() -> list[int]:
    """This rank's process and its world's others: each tells its own."""
    pids: list[int | None] = [None] * dist.get_world_size()
    dist.all_gather_object(pids, os.getpid())
    return [pid for pid in pids if pid is not None]


def _stranger(address: tuple[str, int], words: bytes) -> socket.socket:
    sock = socket.create_connection(address, timeout=5)
    with contextlib.suppress(OSError):
        sock.sendall(words)
    return sock


def _listening(pids: Sequence[int]) -> list[tuple[str, int]]:
    """The addresses on which processes listen, by the kernel's own account."""
    inodes = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(path.readlink()).removeprefix("socket:[").rstrip("]"))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, _, port = fields[1].partition(":")
                # Words of 32 bits, each in the machine's order of bytes.
                words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]
                found.append((str(ip_address(b"".join(words))), int(port, 16)))
    return found
