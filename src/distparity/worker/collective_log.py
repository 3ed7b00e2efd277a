"""Our own record of the collectives that a rank begins and waits for.

Kept only where torch keeps none: before 2.8 with gloo, and with a vendor's backend that has no
flight recorder. There the process group's methods, the functional collectives and what waits for
either are wrapped; each notes what was asked and then does it, and what it noted is a variable of its
frame, where the stack reporter finds it. Nobody sees here what C++ begins by itself.
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
from torch.distributed import _functional_collectives as functional

from distparity.torch_support import private

__all__ = ["Begun", "CollectiveLog", "described", "is_ours", "sequence"]

#: A process group's methods, some by an older and a newer name, and what users know them by.
_METHODS = {
    "_allgather_base": "all_gather_into_tensor",
    "_reduce_scatter_base": "reduce_scatter_tensor",
    "all_gather_single": "all_gather_single",
    "all_gather_single_coalesced": "all_gather_single_coalesced",
    "all_to_all_single": "all_to_all_single",
    "allgather": "all_gather",
    "allgather_coalesced": "all_gather_coalesced",
    "allgather_into_tensor_coalesced": "all_gather_into_tensor_coalesced",
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce_coalesced",
    "alltoall": "all_to_all",
    "alltoall_base": "all_to_all_single",
    "barrier": "barrier",
    "broadcast": "broadcast",
    "gather": "gather",
    "gather_single": "gather_single",
    "monitored_barrier": "monitored_barrier",
    "recv": "recv",
    "recv_anysource": "recv",
    "reduce": "reduce",
    "reduce_scatter": "reduce_scatter",
    "reduce_scatter_single": "reduce_scatter_single",
    "reduce_scatter_single_coalesced": "reduce_scatter_single_coalesced",
    "reduce_scatter_tensor_coalesced": "reduce_scatter_tensor_coalesced",
    "scatter": "scatter",
    "send": "send",
}
#: Functions of torch's functional collectives, which C++ begins; what they return is waited for.
_FUNCTIONS = (
    "all_gather_into_tensor_coalesced",
    "all_gather_single",
    "all_gather_single_autograd",
    "all_gather_single_coalesced",
    "all_gather_tensor",
    "all_gather_tensor_autograd",
    "all_reduce",
    "all_reduce_coalesced",
    "all_to_all_single",
    "all_to_all_single_autograd",
    "broadcast",
    "permute_tensor",
    "reduce_scatter_single",
    "reduce_scatter_single_autograd",
    "reduce_scatter_single_coalesced",
    "reduce_scatter_tensor",
    "reduce_scatter_tensor_autograd",
    "reduce_scatter_tensor_coalesced",
)
#: Where somebody waits for what a functional collective returned.
_WAIT_TENSOR = "wait_tensor"


@dataclass
class Begun:
    """A collective that this rank began; ``number`` counts those of its group, None: not known."""

    name: str
    shapes: list[list[int]]
    dtype: str
    #: Description and name; empty for the default group.
    group: str
    number: int | None = None


class CollectiveLog:
    """What this process began, and what of it has not ended, once :meth:`keep` is called."""

    def __init__(self) -> None:
        #: How many collectives of the default group were begun, those of C++ left out.
        self.count = 0
        self._inside = False
        self._last: Begun | None = None
        self._group: weakref.ref[Any] | None = None
        #: What somebody could still wait for, of the last one; None for a functional one.
        self._handles: list[weakref.ref[Any]] | None = None
        #: By what is waited for: a Work or its future.
        self._begun: weakref.WeakKeyDictionary[Any, Begun] = weakref.WeakKeyDictionary()

    def keep(self) -> None:
        """Wrap what begins collectives and what waits for them, until this process ends.

        Raises ``ValueError`` when there is no default process group.
        """
        # A vendor's may be a class of its own, in Python, and other groups torch's.
        for group in {type(dist.group.WORLD), dist.ProcessGroup}:
            for method, name in _METHODS.items():
                if method in vars(group):
                    setattr(group, method, self._method(getattr(group, method), name))
        for name in _FUNCTIONS:
            if hasattr(functional, name):
                setattr(functional, name, self._function(getattr(functional, name), name))
        work: Any = dist.Work
        future: Any = private.future_type()
        if future is not None:
            future.wait = self._wait(future.wait)
        work.wait = self._wait(work.wait)
        work.get_future = self._get_future(work.get_future)

    def open(self, frames: list[FrameType]) -> tuple[Begun | None, bool | None]:
        """What is waited for in these frames, or what was begun last and may not have ended.

        The second says whether it is waited for; None where frames of ours do not tell. ``frames`` are
        those of a thread, from the innermost outward.
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
            # C++ has begun another one since.
            return True
        if self._handles is None:
            return False
        # Where nobody holds one any more, nobody can wait for it.
        return all(map(_is_done, [handle() for handle in self._handles]))

    def _method(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(method)
        def begin(group: Any, *args: Any, **kwargs: Any) -> Any:
            begun = self._note(name, group, [*args, *kwargs.values()])
            work = method(group, *args, **kwargs)
            self._begin(begun, group, work)
            return work

        return begin

    def _function(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        bind = inspect.signature(function).bind

        @functools.wraps(function)
        def begin(*args: Any, **kwargs: Any) -> Any:
            # A compiler that reads this is to find torch's own and no more; and what one of them
            # does by another is one collective.
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
            begun = self._begun_of(handle)  # noqa: F841  the stack reporter reads it
            return wait(handle, *args, **kwargs)

        return wait_for

    def _get_future(self, get_future: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(get_future)
        def get(work: Any) -> Any:
            future = get_future(work)
            begun = self._begun_of(work)
            if begun is not None:
                self._add(begun, future)
            return future

        return get

    # None of what follows may raise: it is in the way of what the rank is there for.

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
        """It was begun; of a functional one there is no ``work``."""
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
        # A vendor's may be of a class that nothing can refer to weakly.
        with contextlib.suppress(TypeError):
            self._begun[handle] = begun
            if begun is self._last and self._handles is not None:
                self._handles.append(weakref.ref(handle))


def is_ours(frame: FrameType) -> bool:
    """True for a frame of what is wrapped here: it is in nobody's program."""
    return frame.f_code.co_filename == __file__


def described(values: list[Any]) -> dict[str, Any]:
    """``shapes`` and ``dtype`` of the first tensor among a call's arguments; empty without one."""
    tensors = _tensors(values)
    return {
        "shapes": [list(tensor.shape) for tensor in tensors[:1]],
        "dtype": str(tensors[0].dtype).removeprefix("torch.") if tensors else "",
    }


def sequence(group: Any, otherwise: int) -> int:
    """How many collectives a group has begun; ``otherwise`` where it does not count them."""
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
        return "that it does not tell"
    if group is dist.group.WORLD:
        return ""
    try:
        return f"{group.group_desc} ({group.group_name})"
    except RuntimeError:
        # A vendor's may have been given neither.
        return "that has no name"


def _asked(bind: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, list[Any]]:
    """The process group of a functional collective, None where it is not found, and its arguments."""
    try:
        asked = bind(*args, **kwargs).arguments
        return _group(asked["group"]), list(asked.values())
    except Exception:
        return None, []


def _group(value: Any) -> Any:
    if isinstance(value, dist.ProcessGroup):
        return value
    if isinstance(value, list):
        # Ranks: to look for their group could make one.
        return None
    return private.resolve_group(value)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for one in value for tensor in _tensors(one)]
    return []
