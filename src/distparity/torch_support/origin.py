"""Whose an exception is: torch's or a backend's, or that of a strategy, a scenario or the harness."""

from __future__ import annotations

import dis
import sys
from collections.abc import Collection
from types import CodeType

from distparity.core.refusal import TORCH

__all__ = ["of"]

#: The top-level packages of torch.
_TORCH = ("torch", "functorch")


def of(error: BaseException, packages: Collection[str] = ()) -> str:
    """``"torch"`` where an exception came out of torch or of one of a backend's ``packages``.

    The innermost frame outside the standard library says whose it is. Where that frame is not torch's,
    the exception is torch's only if C++ raised it, not a ``raise`` in that frame. What was raised from
    another exception is torch's only if both are. Everything else is ``"other"``.
    """
    inside = (*_TORCH, *packages)
    mine = _came_from(error, inside)
    cause = error.__cause__
    return TORCH if mine and (cause is None or of(cause, packages) == TORCH) else "other"


def _came_from(error: BaseException, packages: Collection[str]) -> bool:
    steps = list(_steps(error))
    # The standard library raises on behalf of who called it.
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
    # Python's own interpreter hardly raises it; torch's C++ does for all that it refuses.
    return isinstance(error, RuntimeError)


def _steps(error: BaseException) -> list[tuple[str, CodeType, int]]:
    """Module, code and instruction of every frame, the innermost last."""
    found, trace = [], error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        found.append((str(frame.f_globals.get("__name__", "")), frame.f_code, trace.tb_lasti))
        trace = trace.tb_next
    return found


def _lacking(error: AttributeError | ImportError) -> str:
    """The module that lacks what was asked for, or of whose class an instance does."""
    if isinstance(error, ImportError):
        return error.name or ""
    owner = error.obj
    return str(getattr(owner, "__name__" if type(owner) is type(sys) else "__module__", ""))


def _top(module: str) -> str:
    return module.partition(".")[0]
