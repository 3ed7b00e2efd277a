"""Native stacks, as the handler of fatal signals that comes with torch writes them.

It is of the torch that is there, costs nothing before a process dies, and takes the stacks of all
threads in some hundredths of a second. Only what libraries export has a name in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["brief", "collective", "message", "read", "split", "waits"]

_BEGIN = re.compile(r"^SIG[A-Z]+\(\d+\), PID: \d+, Thread (\d+): *$", re.MULTILINE)
_FRAME = re.compile(r"^ ?frame #\d+: (.+) \+ 0x[0-9a-f]+ \(0x[0-9a-f]+ in (.*)\)$")
_PYTHON = "<omitting python frames>"
_UNKNOWN = "<unknown function>"
#: How a thread starts and how a signal reaches it: the same in every stack.
_NOISE = re.compile(r"^(c10::FatalSignalHandler::|gsignal$|raise$|__libc_start|_start$|clone3?$)")
#: The thread that is ours waits in it.
_OURS = "sigwait"
_BASE = re.compile(r"^(libc|libpthread|libstdc\+\+|ld-linux[-\w]*)[.-]")
#: gloo's functions, by which a thread that works for a process group is known.
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
#: DDP's, which waits for the gradients' sums; before gloo's were exported there is only this. Once
#: it waits for the first rank's order of them.
_REDUCER = "c10d::Reducer::"
_REDUCER_ORDER = "c10d::Reducer::sync_bucket_indices"
#: Where a thread waits for what it, or another, has begun, or for a device that does it.
_WORK = re.compile(
    r"^(c10d::.*(Work::|Reducer::|wait)|c10::ivalue::Future::wait|(cuda|hip)\w*Synchronize$)"
)
#: A message from one rank to another, which torch's recorder leaves out with gloo.
_MESSAGE = re.compile(r"^(?:c10d::.*::(Recv|Send)Work::wait|gloo::.*::wait(Recv|Send))$")
#: A future of torch's, whose own function has no name.
_FUTURE = ["std::condition_variable::wait", "a function of libtorch_python.so"]

Stacks = dict[int, list[str]]


def split(output: str) -> tuple[str, str]:
    """A process's output: what it wrote itself, and its native stacks."""
    found = _BEGIN.search(output)
    return (output, "") if found is None else (output[: found.start()], output[found.start() :])


def read(text: str) -> Stacks:
    """By thread, the functions that it is in, from the innermost outward, without the noise."""
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
    """A C++ function's name; its arguments are mostly templates."""
    plain = function.replace("(anonymous namespace)", "anonymous")
    return plain.partition("(")[0] or plain


def brief(stacks: Mapping[int, list[str]]) -> str:
    """For a reader: threads that are in the same place are told once."""
    threads: dict[str, list[int]] = {}
    for thread, frames in stacks.items():
        if frames and _OURS not in frames:
            threads.setdefault("\n".join(f"  {frame}" for frame in frames), []).append(thread)
    return "\n".join(
        f"thread{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}:\n{frames}"
        for frames, numbers in threads.items()
    )


def collective(stacks: Mapping[int, list[str]]) -> str:
    """The collective that gloo is in, whoever began it; empty where it is in none, or in several."""
    functions = [function for frames in stacks.values() for function in frames]
    called = [found[1] for function in functions if (found := _IN_GLOO.match(function))]
    names = {_GLOO[name] for name in called if name in _GLOO}
    if not names and any(function.startswith(_REDUCER) for function in functions):
        return "broadcast" if _REDUCER_ORDER in functions else "all_reduce"
    return names.pop() if len(names) == 1 else ""


def message(frames: list[str]) -> str:
    """``recv`` or ``send``, where a thread waits for that; else empty."""
    if any(map(_IN_GLOO.match, frames)):
        # A collective of gloo's is made of messages.
        return ""
    found = next(filter(None, map(_MESSAGE.match, frames)), None)
    return "" if found is None else (found[1] or found[2]).lower()


def waits(frames: list[str]) -> bool:
    """Whether a thread waits for a collective or a message, to go by its frames."""
    return bool(message(frames)) or any(map(_WORK.match, frames)) or frames[1:3] == _FUTURE
