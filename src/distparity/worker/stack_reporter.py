"""The stack reporter: a thread that reports on a signal where its rank's main thread is.

The collective matters most: a rank that hangs in one waits for the others, and a rank that is in
another collective or in none is the one to look at. The thread reads the main thread's frames, and
torch's flight recorder, which also knows the collectives that C++ starts. If torch has no recorder for
a backend, we keep our own log.

A rank in native code that holds the GIL does not answer here, which is information too.
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

__all__ = ["StackReporter", "choose", "environment"]

#: Whether ranks keep a record of their collectives, torch's or our own (``--no-log``).
_recording = True

#: The variables for the size of torch's flight recorder, newer and older name. They must be set before
#: the first group is made, unless the user has set them.
ENVIRONMENT = {"TORCH_FR_BUFFER_SIZE": "64"}
OLDER_ENVIRONMENT = {"TORCH_NCCL_TRACE_BUFFER_SIZE": "64"}
#: Functions in which the main thread waits for a collective that C++ began, or for a device. The last
#: entry of the recorder alone proves nothing: gloo's entries are marked as ended with a delay.
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
#: The recorder's names of dtypes.
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


def choose(*, recording: bool) -> None:
    """Set whether this process, and those that are forked from it, keep a record of collectives."""
    global _recording  # noqa: PLW0603
    _recording = recording


def environment(*, older: bool) -> dict[str, str]:
    """The variables that a rank needs before it makes a group."""
    return (OLDER_ENVIRONMENT if older else ENVIRONMENT) if _recording else {}


class StackReporter:
    """Answers a signal by writing JSON to a file, in its own thread.

    Create it in the main thread before any other thread starts, because the signal must be blocked in
    all of them.
    """

    def __init__(self, path: str) -> None:
        # The controller has opened the file already, so it must not be replaced.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._main = threading.get_ident()
        self._base = 0
        #: torch's flight recorders; our own log if there are none.
        self._dump: Callable[[], bytes] | None = None
        self._log: CollectiveLog | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, {processes.STACK_REPORT})
        threading.Thread(target=self._watch, name="distparity-stack-reporter", daemon=True).start()

    def joined(self) -> None:
        """Called when the rank has joined a process group and has run its first collective.

        If torch has not recorded that, we keep our own log. Entries that a vendor's group makes
        through another group do not count.
        """
        if not _recording:
            return
        self._dump = next(
            (dump for dump in private.flight_recorders() if any(map(_is_default, _entries(dump)))),
            None,
        )
        if self._dump is None:
            self._log = CollectiveLog()
            self._log.keep()

    def begin(self) -> None:
        """Called when a task begins: collectives are counted from here."""
        self._base = self._sequence()

    def calls(self) -> int:
        """The number of collectives of the default group that this rank has begun in this task."""
        return self._sequence() - self._base

    def _sequence(self) -> int:
        count = self._log.count if self._log else 0
        # A bare process has no group, and a task may have destroyed the group.
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
        """Where an exception was raised, in the form of the report about a rank that hangs."""
        with contextlib.suppress(Exception):
            frames = [step for step, _ in traceback.walk_tb(error.__traceback__)][::-1]
            return self._testify(frames, ended=True)
        return {}

    def _testify(self, frames: list[FrameType], *, ended: bool = False) -> dict[str, Any]:
        """Report on ``frames``, from the innermost outward; ``ended`` if they no longer run."""
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
                # C++ waits for a collective that it began; without a recorder we know no more.
                found["call"] = {"name": BACKWARD}
        return found

    def _open(self, frames: list[FrameType], *, ended: bool) -> dict[str, Any]:
        """The collective that has not ended, and whether these frames wait for it, if known."""
        if self._dump is not None:
            return {"open": _recorded(_entries(self._dump), self._base, latest=ended)}
        if self._log is None:
            return {}
        begun, waited = self._log.open(frames)
        if not waited and _waits_for_thread(frames):
            # A thread that waits for another thread waits for the same collective.
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
    """The outermost collective function in the frames."""
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
        # Making a group is not a collective, although all ranks take part.
        **({"number": None} if found.f_code.co_name == "new_group" else {}),
        **described([values.get(name) for name in names]),
    }


def _entries(dump: Callable[[], bytes]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dump()).get("entries", [])
    return found


def _is_default(entry: dict[str, Any]) -> bool:
    return bool(entry["process_group"][1] == "default_pg")


def _recorded(entries: list[dict[str, Any]], base: int, *, latest: bool) -> dict[str, Any] | None:
    """The first entry that has not ended; with ``latest``, the last entry of all, if it has not."""
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
