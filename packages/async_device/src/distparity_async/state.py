"""The one runtime of a process, and its C++ part: a process can rename its device once."""

from __future__ import annotations

from typing import Any

from distparity_async.runtime import Runtime

__all__ = ["native", "runtime", "set_up"]

_state: list[tuple[Runtime, Any]] = []


def set_up(found: Runtime, part: Any) -> None:
    _state.append((found, part))


def runtime() -> Runtime:
    """The process's; raises ``RuntimeError`` before the device is registered."""
    if not _state:
        raise RuntimeError("asim is not registered: import distparity_async and call register()")
    return _state[0][0]


def native() -> Any:
    runtime()
    return _state[0][1]
