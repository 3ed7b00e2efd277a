"""A thread that tells, when asked by a signal, where its rank's main thread is.

What matters is the collective: a rank that hangs in one is waiting for the others, and the one that
is in another collective, or in none, is the one to look at. The thread reads the main thread's
frames, and torch's flight recorder, which also knows the collectives that C++ starts. Where torch
records nothing of a backend, a record of our own is kept.

A rank whose interpreter lock is held by native code gives no answer here, and that is one as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch.distributed as dist

from distparity.core import processes
from distparity.core.collective_call import BACKWARD, COLLECTIVES
from distparity.torch_support import private
from distparity.worker.collective_log import CollectiveLog, described, is_ours, sequence

__all__ = ["StackReporter"]

#: Size of torch's flight recorder, by its newer and its older name; to be there before the first
#: group is made, where nobody has set it.
ENVIRONMENT = {"TORCH_FR_BUFFER_SIZE": "64"}
OLDER_ENVIRONMENT = {"TORCH_NCCL_TRACE_BUFFER_SIZE": "64"}
#: Where the main thread is while it waits for a collective that C++ began, or for a device. The
#: recorder's last entry alone proves nothing: gloo's are marked as ended some time after they did.
_WAITING = (
    "/torch/distributed/",
    "/torch/autograd/graph.py",
    "/torch/nn/parallel/",
    "/torch/_ops.py",
    "/torch/cuda/",
    "/torch/xpu/",
    "/torch/accelerator/",
    threading.__file__,
)
#: Dtypes as the recorder calls them.
_DTYPES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Byte": "uint8",
    "Bool": "bool",
}


class StackReporter:
    """Answers a signal with a JSON file, in a thread of its own.

    Make it in the main thread before that starts any other: the signal must be blocked in all.
    """

    def __init__(self, path: str) -> None:
        # The controller has opened it before, and will not look at another one of that name.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._main = threading.get_ident()
        self._base = 0
        #: How torch tells what it has recorded, and in place of that, what we have.
        self._dump: Callable[[], bytes] | None = None
        self._log: CollectiveLog | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, {processes.STACK_REPORT})
        threading.Thread(target=self._watch, name="distparity-stack-reporter", daemon=True).start()

    def joined(self) -> None:
        """The rank has a process group, whose first collective it has been in.

        If torch has no record of that, there will be one of ours. What a vendor's group does by way
        of another one is no record of its own.
        """
        self._dump = next(
            (dump for dump in private.flight_recorders() if any(map(_is_default, _entries(dump)))),
            None,
        )
        if self._dump is None:
            self._log = CollectiveLog()
            self._log.keep()

    def begin(self) -> None:
        """A task begins: collectives count from here."""
        self._base = self._sequence()

    def calls(self) -> int:
        """How many collectives of the default group this rank has begun in this task."""
        return self._sequence() - self._base

    def _sequence(self) -> int:
        count = self._log.count if self._log else 0
        # A rank of a bare process has no group, and a task may have destroyed it.
        return count if dist.group.WORLD is None else sequence(dist.group.WORLD, count)

    def _watch(self) -> None:
        while True:
            signal.sigwait({processes.STACK_REPORT})
            with contextlib.suppress(Exception):
                text = json.dumps(self._look()).encode() + b"\n"
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, text, 0)

    def _look(self) -> dict[str, Any]:
        frame = sys._current_frames().get(self._main)
        return self._testify(list(_outward(frame)))

    def of_error(self, error: BaseException) -> dict[str, Any]:
        """Where an exception came from, as this thread would tell it of a rank that hangs."""
        with contextlib.suppress(Exception):
            frames = [step for step, _ in traceback.walk_tb(error.__traceback__)][::-1]
            return self._testify(frames, ended=True)
        return {}

    def _testify(self, frames: list[FrameType], *, ended: bool = False) -> dict[str, Any]:
        """``frames`` go from the innermost outward; ``ended`` is true where nobody waits any more."""
        found: dict[str, Any] = {"calls": self.calls(), "call": _call_in(frames)}
        told = [frame for frame in frames if not is_ours(frame)]
        if told:
            code = told[0].f_code
            found["at"] = f"{Path(code.co_filename).name}:{told[0].f_lineno} in {code.co_name}"
            found["waits"] = any(part in code.co_filename for part in _WAITING)
            with contextlib.suppress(Exception):
                found |= self._open(frames, ended=ended)
            if found["waits"]:
                found["call"] = found.get("open") or found["call"]
            if code.co_name == "_engine_run_backward" and not found["call"] and found["calls"]:
                # C++ waits there for what it began; without a recorder that is all there is.
                found["call"] = {"name": BACKWARD}
        return found

    def _open(self, frames: list[FrameType], *, ended: bool) -> dict[str, Any]:
        """The collective that has not ended, and whether these frames wait for it, where that is known."""
        if self._dump is not None:
            return {"open": _recorded(_entries(self._dump), self._base, latest=ended)}
        if self._log is None:
            return {}
        begun, waited = self._log.open(frames)
        if not waited and _waits_for_thread(frames):
            # Who waits for another thread waits for what that one waits for.
            for frame in sys._current_frames().values():
                other = self._log.open(list(_outward(frame)))
                if other[1]:
                    begun, waited = other
        if begun is None:
            return {}
        number = begun.number
        if number is not None and not begun.group:
            number -= self._base
        account = {key: vars(begun)[key] for key in ("name", "shapes", "dtype", "group")}
        told = {} if waited is None else {"waits": waited}
        return {"open": account | {"number": number}, **told}


def _waits_for_thread(frames: list[FrameType]) -> bool:
    return bool(frames) and frames[0].f_code.co_filename == threading.__file__


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _call_in(frames: list[FrameType]) -> dict[str, Any] | None:
    """The collective whose Python function the frames are in, the outermost one."""
    found = None
    for frame in frames:
        code = frame.f_code
        if code.co_name in COLLECTIVES and code.co_filename.endswith("distributed_c10d.py"):
            found = frame
    if found is None:
        return None
    values = found.f_locals
    names = found.f_code.co_varnames[: found.f_code.co_argcount]
    return {
        "name": found.f_code.co_name,
        # To make a group is no collective of one, though all ranks take part.
        **({"number": None} if found.f_code.co_name == "new_group" else {}),
        **described([values.get(name) for name in names]),
    }


def _entries(dump: Callable[[], bytes]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dump()).get("entries", [])
    return found


def _is_default(entry: dict[str, Any]) -> bool:
    return bool(entry["process_group"][1] == "default_pg")


def _recorded(entries: list[dict[str, Any]], base: int, *, latest: bool) -> dict[str, Any] | None:
    """The first call that has not ended; with ``latest`` the last one of all, if it has not."""
    looked = entries[-1:] if latest else entries
    entry = next((entry for entry in looked if not entry["retired"]), None)
    if entry is None:
        return None
    group, description = entry["process_group"]
    number = entry["collective_seq_id"]
    default = _is_default(entry)
    return {
        "name": entry["profiling_name"].rpartition(":")[2],
        "number": number - base if default else number,
        "shapes": entry["input_sizes"][:1],
        "dtype": " ".join(_DTYPES.get(name, name) for name in entry["input_dtypes"][:1]),
        "group": "" if default else f"{description} ({group})",
    }
