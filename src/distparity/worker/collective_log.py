"""Our own record of the collectives that a rank begins and waits for.

It is kept only if torch keeps none: before 2.8 with gloo, and with a vendor's backend without a flight
recorder. The process group's methods, the functional collectives and the functions that wait for them
are wrapped. Each wrapper notes the call in a variable of its frame, where the stack reporter finds it,
and then makes the call. Collectives that C++ begins by itself are not seen here.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from distparity.devices import delays
from distparity.torch_support import private
from distparity.worker import wrapping

__all__ = ["Begun", "CollectiveLog", "described", "is_ours", "sequence"]

#: The functions that wait for the result of a functional collective.
_WAIT_TENSOR = "wait_tensor"


#: The files with code that runs between a program and torch.
_OURS = (__file__, wrapping.__file__, delays.__file__)


@dataclass
class Begun:
    """A collective that this rank began; ``number`` counts those of its group, None if unknown."""

    name: str
    shapes: list[list[int]]
    dtype: str
    #: Description and name; empty for the default group.
    group: str
    number: int | None = None


class CollectiveLog:
    """The collectives that this process began and that have not ended, after a call of :meth:`keep`."""

    def __init__(self) -> None:
        #: The number of collectives begun in the default group, without those of C++.
        self.count = 0
        self._inside = False
        self._last: Begun | None = None
        self._group: weakref.ref[Any] | None = None
        #: The handle of the last one, if somebody can still wait for it; None for a functional one.
        self._handles: list[weakref.ref[Any]] | None = None
        #: By the handle that is waited for: a Work or its future.
        self._begun: weakref.WeakKeyDictionary[Any, Begun] = weakref.WeakKeyDictionary()

    def keep(self) -> None:
        """Wrap the functions that begin collectives and wait for them, until this process ends.

        Raises ``ValueError`` if there is no default process group.
        """
        wrapping.methods(self._method)
        wrapping.functions(self._function)
        future: Any = private.future_type()
        if future is not None:
            future.wait = self._wait(future.wait)
        wrapping.replace(dist.Work, "wait", self._wait)
        wrapping.replace(dist.Work, "get_future", self._get_future)

    def open(self, frames: list[FrameType]) -> tuple[Begun | None, bool | None]:
        """The collective that these frames wait for, or else the last one if it may not have ended.

        The second result says whether it is waited for; None if our frames do not tell. ``frames``
        are those of a thread, from the innermost outward.
        """
        found = [frame.f_locals.get("begun") for frame in frames if is_ours(frame)]
        for begun in reversed(found):
            if isinstance(begun, Begun):
                return begun, True
        last = self._last
        if last is None or self._has_ended(last):
            return None, None
        if self._handles is None:
            return last, any(frame.f_code.co_name == _WAIT_TENSOR for frame in frames)
        return last, None

    def _has_ended(self, last: Begun) -> bool:
        group = self._group and self._group()
        if group is None or sequence(group, self.count) != last.number:
            # C++ has begun another collective since.
            return True
        if self._handles is None:
            return False
        # If nobody holds the handle any more, nobody can wait for it.
        return all(map(_is_done, [handle() for handle in self._handles]))

    def _method(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(method)
        def begin(group: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            begun = self._note(name, group, [*args, *kwargs.values()])
            work = method(group, *args, **kwargs)
            self._begin(begun, group, work)
            return work

        return begin

    def _function(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        bind = inspect.signature(function).bind

        @functools.wraps(function)
        def begin(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            # A compiler that traces this must see only torch's own function. A collective that is
            # implemented by another one counts once.
            if torch.compiler.is_compiling() or self._inside:
                return function(*args, **kwargs)
            group, values = _asked(bind, args, kwargs)
            begun = self._note(name, group, values)
            self._inside = True
            try:
                found = function(*args, **kwargs)
            finally:
                self._inside = False
            self._begin(begun, group, None)
            return found

        return begin

    def _wait(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(wait)
        def wait_for(handle: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            begun = self._begun_of(handle)  # noqa: F841  the stack reporter reads it
            return wait(handle, *args, **kwargs)

        return wait_for

    def _get_future(self, get_future: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(get_future)
        def get(work: Any) -> Any:
            __tracebackhide__ = True
            future = get_future(work)
            begun = self._begun_of(work)
            if begun is not None:
                self._add(begun, future)
            return future

        return get

    # Nothing below may raise, because it runs inside the calls of the case.

    def _begun_of(self, handle: Any) -> Begun | None:
        try:
            return self._begun.get(handle)
        except TypeError:
            return None

    def _note(self, name: str, group: Any, values: list[Any]) -> Begun | None:
        try:
            number = sequence(group, self.count) + 1
            return Begun(name, **described(values), group=_title(group), number=number)
        except Exception:
            return None

    def _begin(self, begun: Begun | None, group: Any, work: Any) -> None:
        """Note that a collective was begun; a functional one has no ``work``."""
        if begun is None:
            return
        self.count += not begun.group
        begun.number = sequence(group, self.count)
        self._last, self._group = begun, None
        self._handles = None if work is None else []
        with contextlib.suppress(TypeError):
            self._group = weakref.ref(group)
        if work is not None:
            self._add(begun, work)

    def _add(self, begun: Begun, handle: Any) -> None:
        # A vendor's handle may be of a class without weak references.
        with contextlib.suppress(TypeError):
            self._begun[handle] = begun
            if begun is self._last and self._handles is not None:
                self._handles.append(weakref.ref(handle))


def is_ours(frame: FrameType) -> bool:
    """True for a frame of one of our wrappers, which is not part of the user's program."""
    return frame.f_code.co_filename in _OURS


def described(values: list[Any]) -> dict[str, Any]:
    """``shapes`` and ``dtype`` of the first tensor among a call's arguments; empty without one."""
    tensors = _tensors(values)
    return {
        "shapes": [list(tensor.shape) for tensor in tensors[:1]],
        "dtype": str(tensors[0].dtype).removeprefix("torch.") if tensors else "",
    }


def sequence(group: Any, otherwise: int) -> int:
    """The number of collectives that a group has begun; ``otherwise`` if it does not count them."""
    try:
        return int(group._get_sequence_number_for_group())
    except (AttributeError, RuntimeError):
        return otherwise


def _is_done(handle: Any) -> bool:
    if handle is None:
        return True
    future: Any = private.future_type() or ()
    return bool(handle.done() if isinstance(handle, future) else handle.is_completed())


def _title(group: Any) -> str:
    if group is None:
        return "(unknown)"
    if group is dist.group.WORLD:
        return ""
    try:
        return f"{group.group_desc} ({group.group_name})"
    except RuntimeError:
        # A vendor's group may have neither.
        return "(unnamed)"


def _asked(bind: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, list[Any]]:
    """The process group of a functional collective (None if not found), and its arguments."""
    try:
        asked = bind(*args, **kwargs).arguments
        return _group(asked["group"]), list(asked.values())
    except Exception:
        return None, []


def _group(value: Any) -> Any:
    if isinstance(value, dist.ProcessGroup):
        return value
    if isinstance(value, list):
        # A list of ranks: looking up its group could create one.
        return None
    return private.resolve_group(value)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for one in value for tensor in _tensors(one)]
    return []
