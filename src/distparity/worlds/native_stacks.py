"""Read native stacks, as torch's handler for fatal signals writes them.

The handler comes with torch, costs nothing until a process dies, and writes the stacks of all threads
within some hundredths of a second. Only functions that a library exports have a name in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["brief", "collective", "message", "read", "split", "waits"]

_BEGIN = re.compile(r"^SIG[A-Z]+\(\d+\), PID: \d+, Thread (\d+): *$", re.MULTILINE)
_FRAME = re.compile(r"^ ?frame #\d+: (.+) \+ 0x[0-9a-f]+ \(0x[0-9a-f]+ in (.*)\)$")
_PYTHON = "<omitting python frames>"
_UNKNOWN = "<unknown function>"
#: Frames that every stack has: how a thread starts, and how a signal reaches it.
_NOISE = re.compile(r"^(c10::FatalSignalHandler::|gsignal$|raise$|__libc_start|_start$|clone3?$)")
#: Our stack reporter's thread waits in this function.
_OURS = "sigwait"
_BASE = re.compile(r"^(libc|libpthread|libstdc\+\+|ld-linux[-\w]*)[.-]")
#: gloo's functions: they identify a thread that works for a process group.
_GLOO = {
    "allgather": "all_gather",
    "allgatherv": "all_gather",
    "allreduce": "all_reduce",
    "alltoall": "all_to_all",
    "alltoallv": "all_to_all",
    "barrier": "barrier",
    "broadcast": "broadcast",
    "gather": "gather",
    "gatherv": "gather",
    "reduce": "reduce",
    "reduce_scatter": "reduce_scatter",
    "scatter": "scatter",
}
_IN_GLOO = re.compile(r"^gloo::(\w+)$")
#: DDP's functions that wait for the sum of the gradients; before gloo exported its functions, only
#: these have names. One of them waits for the first rank's order of the buckets.
_REDUCER = "c10d::Reducer::"
_REDUCER_ORDER = "c10d::Reducer::sync_bucket_indices"
#: Functions in which a thread waits for a collective, or for a device.
_WORK = re.compile(
    r"^(c10d::.*(Work::|Reducer::|wait)|c10::ivalue::Future::wait|(cuda|hip)\w*Synchronize$)"
)
#: Messages from one rank to another; torch's flight recorder does not record them with gloo.
_MESSAGE = re.compile(r"^(?:c10d::.*::(Recv|Send)Work::wait|gloo::.*::wait(Recv|Send))$")
#: The stack of a thread that waits for a torch future; the future's own function has no name.
_FUTURE = ["std::condition_variable::wait", "a function of libtorch_python.so"]

Stacks = dict[int, list[str]]


def split(output: str) -> tuple[str, str]:
    """Split a process's output into its own text and its native stacks."""
    found = _BEGIN.search(output)
    return (output, "") if found is None else (output[: found.start()], output[found.start() :])


def read(text: str) -> Stacks:
    """The functions of each thread, from the innermost outward, without frames that all have."""
    parts = _BEGIN.split(text)[1:]
    return {
        int(thread): _frames(body) for thread, body in zip(parts[::2], parts[1::2], strict=True)
    }


def _frames(body: str) -> list[str]:
    found: list[str] = []
    for line in body.splitlines():
        if line == _PYTHON:
            found.append("Python")
        elif (frame := _FRAME.match(line)) is not None:
            function, library = frame[1], frame[2].rpartition("/")[2]
            if function == _UNKNOWN and not _BASE.match(library):
                found.append(f"a function of {library}")
            elif function != _UNKNOWN and not _NOISE.match(function) and function.isascii():
                found.append(_without_arguments(function))
    return found


def _without_arguments(function: str) -> str:
    """The name of a C++ function; its arguments are mostly templates."""
    plain = function.replace("(anonymous namespace)", "anonymous")
    return plain.partition("(")[0] or plain


def brief(stacks: Mapping[int, list[str]]) -> str:
    """Format the stacks; threads with equal stacks are listed together."""
    threads: dict[str, list[int]] = {}
    for thread, frames in stacks.items():
        if frames and _OURS not in frames:
            threads.setdefault("\n".join(f"  {frame}" for frame in frames), []).append(thread)
    return "\n".join(
        f"thread{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}:\n{frames}"
        for frames, numbers in threads.items()
    )


def collective(stacks: Mapping[int, list[str]]) -> str:
    """The collective that gloo is in, whoever began it; empty if it is in none, or in several."""
    functions = [function for frames in stacks.values() for function in frames]
    called = [found[1] for function in functions if (found := _IN_GLOO.match(function))]
    names = {_GLOO[name] for name in called if name in _GLOO}
    if not names and any(function.startswith(_REDUCER) for function in functions):
        return "broadcast" if _REDUCER_ORDER in functions else "all_reduce"
    return names.pop() if len(names) == 1 else ""


def message(frames: list[str]) -> str:
    """``recv`` or ``send`` if a thread waits for that; else empty."""
    if any(map(_IN_GLOO.match, frames)):
        # gloo's collectives are made of messages, so those do not count.
        return ""
    found = next(filter(None, map(_MESSAGE.match, frames)), None)
    return "" if found is None else (found[1] or found[2]).lower()


def waits(frames: list[str]) -> bool:
    """Whether a thread's frames show that it waits for a collective or a message."""
    return bool(message(frames)) or any(map(_WORK.match, frames)) or frames[1:3] == _FUTURE
