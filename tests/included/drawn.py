"""Strategies with a fault that a seed has drawn: what happens, when, and to which process.

Given to a run with ``--include drawn``; ``CAMPAIGN`` names the faults, as ``SEED-NUMBER`` with
commas between them. In the folder ``CAMPAIGN_NOTES``, each fault notes the processes around it, and
when it happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from torch import nn

from distparity.devices.context import RankContext
from distparity.strategies import Tensors
from distparity.strategies.ddp import Ddp

FOREVER = 3600
#: Longer than the time limit of the campaign's cases, in seconds.
BEYOND_LIMIT = 11.0


def _channel() -> int:
    """The descriptor on which this rank answers: its one connected socket that has a name there."""
    for name in [path.name for path in Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as sock:
            if sock.family == socket.AF_UNIX and str(sock.getpeername()).endswith("/ranks"):
                return int(name)
    raise AssertionError("no channel")


def _frame(data: dict[str, object]) -> bytes:
    text = json.dumps(data).encode()
    return struct.pack(">8sI", b"dparity1", len(text)) + text


def _full() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    print("no room for this", flush=True)


def _loud() -> None:
    for _ in range(80):
        os.write(1, bytes(1 << 20))


def _remove() -> None:
    Path("/proc/self/fd/1").readlink().unlink()


def _remove_folder() -> None:
    """Remove the folder in which the run has its socket, and its ranks their files."""
    shutil.rmtree(Path("/proc/self/fd/1").readlink().parent, ignore_errors=True)


def _raise() -> None:
    raise ValueError("injected")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _to_fork_server(number: signal.Signals, then: float) -> None:
    os.kill(os.getppid(), number)
    time.sleep(then)


def _slow(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def _controller() -> int:
    return parent_of(os.getppid())


def _kill_controller(number: signal.Signals) -> None:
    os.kill(_controller(), number)
    time.sleep(FOREVER)


def _limit_controller(which: int) -> None:
    """Take from the controller the room for files, or for descriptors."""
    resource.prlimit(_controller(), which, (0, resource.prlimit(_controller(), which)[1]))


def _call_controller(words: bytes, times: int) -> None:
    """Strangers connect to the socket on which ranks report."""
    with socket.socket(fileno=os.dup(_channel())) as ours:
        address = ours.getpeername()
    strangers = []
    for _ in range(times):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(1.0)
        with contextlib.suppress(OSError):
            sock.connect(address)
            sock.sendall(words)
        strangers.append(sock)
    time.sleep(0.2)


HELLO: dict[str, object] = {"op": "hello", "token": "0" * 32, "pid": 1, "blobs": []}

Actions = dict[str, tuple[Callable[[], object], set[str]]]

#: By who it happens to: what happens -> what the case may be then.
ACTIONS: dict[str, Actions] = {
    "rank": {
        "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), {"crash"}),
        "segv": (lambda: ctypes.string_at(0), {"crash"}),
        "exit": (lambda: os._exit(0), {"crash"}),
        "raise": (_raise, {"failed"}),
        "sys-exit": (lambda: sys.exit(0), {"failed"}),
        "stop": (lambda: os.kill(os.getpid(), signal.SIGSTOP), {"timeout"}),
        "sleep": (lambda: time.sleep(FOREVER), {"timeout"}),
        "slow": (lambda: time.sleep(0.5), {"passed"}),
        "full": (_full, {"failed", "passed"}),
        "loud": (_loud, {"passed"}),
        "close-stdout": (lambda: os.close(1), {"passed"}),
        "close-all": (lambda: os.closerange(3, 1024), {"crash", "failed", "timeout"}),
        "close-channel": (lambda: os.close(_channel()), {"crash", "timeout"}),
        "garbage": (lambda: os.write(_channel(), os.urandom(64)), {"failed", "crash"}),
        "half-a-frame": (
            lambda: os.write(_channel(), _frame({"op": "ready"})[:20]),
            {"failed", "crash"},
        ),
        "forged-frame": (
            lambda: os.write(_channel(), _frame({"op": "fork", "blobs": []})),
            {"failed", "crash"},
        ),
        "forged-ready": (
            lambda: os.write(_channel(), _frame({"op": "ready", "blobs": []})),
            {"passed"},
        ),
        "remove-output": (_remove, {"passed"}),
        "remove-folder": (_remove_folder, {"passed", "failed"}),
    },
    "fork server": {
        "kill": (lambda: _to_fork_server(signal.SIGKILL, FOREVER), {"crash"}),
        "stop": (lambda: _to_fork_server(signal.SIGSTOP, 4), {"crash"}),
        # It may be seen while it is stopped, and is then replaced.
        "slow": (lambda: _slow(os.getppid(), 0.5), {"passed", "crash"}),
        "term": (lambda: _to_fork_server(signal.SIGTERM, 0.1), {"passed"}),
        "int": (lambda: _to_fork_server(signal.SIGINT, 0.1), {"passed"}),
    },
    "controller": {
        "kill": (lambda: _kill_controller(signal.SIGKILL), {"missing"}),
        "term": (lambda: _kill_controller(signal.SIGTERM), {"missing"}),
        "int": (lambda: _kill_controller(signal.SIGINT), {"missing"}),
        "hup": (lambda: _kill_controller(signal.SIGHUP), {"missing"}),
        "slow": (lambda: _slow(_controller(), 1.0), {"passed"}),
        "suspend": (lambda: _slow(_controller(), BEYOND_LIMIT), {"passed"}),
        "full": (lambda: _limit_controller(resource.RLIMIT_FSIZE), {"passed", "missing"}),
        "no-descriptors": (
            lambda: _limit_controller(resource.RLIMIT_NOFILE),
            {"passed", "error", "missing"},
        ),
        "garbage": (lambda: _call_controller(os.urandom(64), 1), {"passed"}),
        "forged": (lambda: _call_controller(_frame(HELLO), 1), {"passed"}),
        "flood": (lambda: _call_controller(b"", 200), {"passed"}),
    },
}
#: The judge suffers what a rank does, and its case has no verdict then.
ACTIONS["judge"] = {
    name: (act, {"passed" if status == "passed" else "error" for status in allowed})
    for name, (act, allowed) in ACTIONS["rank"].items()
}
#: When the case is no longer under way: somebody else does it, by process id.
OUTSIDE: dict[str, Callable[[int], object]] = {
    "kill": lambda pid: os.kill(pid, signal.SIGKILL),
    "stop": lambda pid: os.kill(pid, signal.SIGSTOP),
    "slow": lambda pid: _slow(pid, 1.0),
}
#: In the case, after it (its ranks are idle), and after the last case (the run is ending).
MOMENTS = ("start", "training", "answering", "idle", "ending")


class Drawn(NamedTuple):
    """What happens, when, and to whom."""

    who: str
    moment: str
    action: str
    #: To every rank, not only to the last one.
    every: bool

    @property
    def alone(self) -> bool:
        """Whether it needs a run of its own, because it concerns all cases or their order."""
        to_all = self.who == "controller" and self.action not in ("garbage", "forged", "flood")
        return to_all or self.moment in ("idle", "ending")

    @property
    def allowed(self) -> set[str]:
        """What the case may be then."""
        if self.moment in ("idle", "ending"):
            # It has its result already.
            return {"passed"}
        return ACTIONS[self.who][self.action][1]

    @property
    def ends_run(self) -> bool:
        """Whether other cases may be left without a result."""
        return self.who == "controller" and "missing" in ACTIONS[self.who][self.action][1]

    def __str__(self) -> str:
        whom = "every rank" if self.who == "rank" and self.every else f"the {self.who}"
        return f"{self.action} of {whom} at {self.moment}"


#: How often each process and each moment is drawn: what needs a run of its own takes long.
OFTEN = {"rank": 10, "judge": 4, "fork server": 2, "controller": 1}
MOMENTS_OFTEN = (5, 5, 5, 1, 1)


def draw(fault: str) -> Drawn:
    """The fault of this name."""
    dice = random.Random(fault)
    (who,) = dice.choices(list(OFTEN), list(OFTEN.values()))
    (moment,) = dice.choices(MOMENTS, MOMENTS_OFTEN)
    if who == "judge" and moment == "idle":
        # It has other cases' verdicts to make.
        moment = "ending"
    outside = moment in ("idle", "ending")
    action = dice.choice(sorted(OUTSIDE if outside else ACTIONS[who]))
    if who == "controller" and outside and action == "stop":
        # Nobody continues it, and there is nobody who could say so.
        action = "slow"
    return Drawn(who, moment, action, dice.random() < 0.25)


def note(fault: str, **known: float) -> None:
    """Add to what is known of a fault."""
    with Path(os.environ["CAMPAIGN_NOTES"], fault).open("a", encoding="utf-8") as file:
        file.write(json.dumps(known) + "\n")


def notes(folder: Path, fault: str) -> dict[str, float]:
    """What is known of a fault."""
    found: dict[str, float] = {}
    path = folder / fault
    lines: Iterable[str] = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
    for line in lines:
        found.update(json.loads(line))
    return found


class _InJudge:
    """An attribute that the judge alone reads; reading it is what happens to the judge."""

    def __get__(self, one: _Drawn, kind: type[_Drawn]) -> bool:
        note(one.fault, judge=os.getpid())
        drawn = draw(one.fault)
        if drawn.who == "judge" and drawn.moment not in ("idle", "ending"):
            ACTIONS["judge"][drawn.action][0]()
        return False


class _Drawn(Ddp):
    title = "an injected fault, drawn by a seed"
    fault: ClassVar[str]
    splits_rows = _InJudge()

    def wrap(self, model: nn.Module, units: Sequence[nn.Module], context: RankContext) -> nn.Module:
        self.context = context
        self.steps = 0
        self._at("start")
        return super().wrap(model, units, context)

    def gradients(self, model: nn.Module) -> Tensors:
        self.steps += 1
        if self.steps == 2:
            self._at("training")
        found = super().gradients(model)
        if self.steps == 3:
            self._at("answering")
        return found

    def _at(self, moment: str) -> None:
        drawn, last = draw(self.fault), self.context.rank == self.context.world_size - 1
        if moment == "start" and last:
            note(self.fault, rank=os.getpid(), fork_server=os.getppid())
        if moment == drawn.moment and drawn.who != "judge":
            if last:
                note(self.fault, when=time.time())
            if last or (drawn.every and drawn.who == "rank"):
                ACTIONS[drawn.who][drawn.action][0]()


FAULTS = [
    type(f"Drawn{number}", (_Drawn,), {"name": f"fault-{fault}", "fault": fault})
    for number, fault in enumerate(filter(None, os.environ.get("CAMPAIGN", "").split(",")))
]
