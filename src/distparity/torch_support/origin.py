"""Whose code raised an exception: torch or a backend, or a strategy, a scenario or the harness."""

from __future__ import annotations

import dis
import sys
from collections.abc import Collection
from types import CodeType

from distparity.core.refusal import TORCH

__all__ = ["of", "words"]

#: The top-level packages of torch.
_TORCH = ("torch", "functorch")


def of(error: BaseException, packages: Collection[str] = ()) -> str:
    """``"torch"`` if an exception was raised inside torch or one of a backend's ``packages``.

    The innermost frame outside the standard library decides. If that frame is not torch's, the
    exception is torch's only if C++ raised it, and not a ``raise`` in that frame. An exception with a
    cause is torch's only if the cause is too. Everything else is ``"other"``.
    """
    inside = (*_TORCH, *packages)
    mine = _came_from(error, inside)
    cause = error.__cause__
    return TORCH if mine and (cause is None or of(cause, packages) == TORCH) else "other"


def words(error: BaseException) -> str:
    """The type and the first line of an exception, and of its causes that this line does not repeat.

    ``torch`` may keep its reason for the cause: "Sharding propagation failed for ..." does in 2.9.
    """
    text = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    if error.__cause__ is None:
        return text
    cause = words(error.__cause__)
    return text if cause.partition(": ")[2] in text else f"{text} (because of {cause})"


def _came_from(error: BaseException, packages: Collection[str]) -> bool:
    steps = list(_steps(error))
    # The standard library raises on behalf of its caller.
    depth = 0
    while steps and _top(steps[-1][0]) in sys.stdlib_module_names:
        steps.pop()
        depth += 1
    if not steps:
        return False
    module, code, instruction = steps[-1]
    if _top(module) in packages:
        return True
    if depth or dis.opname[code.co_code[instruction]] == "RAISE_VARARGS":
        return False
    if isinstance(error, (AttributeError, ImportError)):
        return _top(_lacking(error)) in packages
    # The Python interpreter rarely raises it; torch's C++ raises it for everything that it refuses.
    return isinstance(error, RuntimeError)


def _steps(error: BaseException) -> list[tuple[str, CodeType, int]]:
    """Module, code object and instruction index of every frame, the innermost last."""
    found, trace = [], error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        found.append((str(frame.f_globals.get("__name__", "")), frame.f_code, trace.tb_lasti))
        trace = trace.tb_next
    return found


def _lacking(error: AttributeError | ImportError) -> str:
    """The module that lacks the name, or the module of the class whose instance lacks it."""
    if isinstance(error, ImportError):
        return error.name or ""
    owner = error.obj
    return str(getattr(owner, "__name__" if type(owner) is type(sys) else "__module__", ""))


def _top(module: str) -> str:
    return module.partition(".")[0]
