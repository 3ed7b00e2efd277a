"""Strategies with a fault that a seed has drawn: what happens, when, and to which process.

Given to a run with ``--include drawn``; ``CAMPAIGN`` names the faults, as ``SEED-NUMBER`` with
commas between them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from torch import nn

from distparity.devices.context import RankContext
from distparity.strategies import Tensors
from distparity.strategies.ddp import Ddp

FOREVER = 3600


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


def _raise() -> None:
    raise ValueError("injected")


def _stop_parent() -> None:
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(4)


def _kill_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(FOREVER)


#: What happens -> what the case may be then.
ACTIONS: dict[str, tuple[Callable[[], object], set[str]]] = {
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
    "stop-parent": (_stop_parent, {"crash"}),
    "kill-parent": (_kill_parent, {"crash"}),
}
MOMENTS = ("start", "training", "answering")


def draw(fault: str) -> tuple[str, str, bool]:
    """Moment, action, and whether every rank does it or the last one only; by the fault's name."""
    dice = random.Random(fault)
    return dice.choice(MOMENTS), dice.choice(sorted(ACTIONS)), dice.random() < 0.25


class _Drawn(Ddp):
    title = "an injected fault, drawn by a seed"
    fault: ClassVar[str]

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
        when, action, every = draw(self.fault)
        if moment == when and (every or self.context.rank == self.context.world_size - 1):
            ACTIONS[action][0]()


FAULTS = [
    type(f"Drawn{number}", (_Drawn,), {"name": f"fault-{fault}", "fault": fault})
    for number, fault in enumerate(filter(None, os.environ.get("CAMPAIGN", "").split(",")))
]
