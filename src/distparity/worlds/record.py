"""Our own record of the collectives that a rank begins and waits for.

Kept only where torch keeps none: before 2.8 with gloo, and with a vendor's backend that has no
flight recorder. There the process group's methods, ``Work.wait`` and the functional collectives are
wrapped; each notes what was asked and then does it. Nobody sees here what C++ begins by itself.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _resolve_process_group
from torch.distributed import _functional_collectives as functional

__all__ = ["Begun", "Record", "sequence"]

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
    "all_gather_tensor",
    "all_gather_tensor_autograd",
    "all_reduce",
    "all_reduce_coalesced",
    "all_to_all_single",
    "all_to_all_single_autograd",
    "broadcast",
    "permute_tensor",
    "reduce_scatter_tensor",
    "reduce_scatter_tensor_autograd",
    "reduce_scatter_tensor_coalesced",
)
#: Where somebody waits for what a functional collective returned.
_WAIT_TENSOR = "wait_tensor"
#: How many frames, from the innermost one, are between that and the C++ that waits.
_NEAR = 3
_MAIN = threading.main_thread()


@dataclass
class Begun:
    """A collective that this rank began; ``number`` counts those of its group, None: not known."""

    name: str
    shapes: list[list[int]]
    dtype: str
    #: Description and name; empty for the default group.
    group: str
    number: int | None = None
    #: At this moment it is begun, or waited for.
    waited: bool = False


class Record:
    """What this process began last, and what its main thread waits for, once :meth:`keep` is called."""

    def __init__(self) -> None:
        #: How many collectives of the default group were begun, those of C++ left out.
        self.count = 0
        self._last: Begun | None = None
        #: Of that one; a Work is the caller's to keep alive.
        self._group: Any = None
        self._work: weakref.ref[Any] | None = None
        self._waited: Begun | None = None
        self._begun: weakref.WeakKeyDictionary[Any, Begun] = weakref.WeakKeyDictionary()

    def keep(self) -> None:
        """Wrap what begins collectives and what waits for them, until this process ends.

        Raises ``ValueError`` when there is no default process group.
        """
        # A vendor's may be a class of its own, in Python.
        group = type(dist.distributed_c10d._get_default_group())
        for method, name in _METHODS.items():
            if hasattr(group, method):
                setattr(group, method, self._method(getattr(group, method), name))
        for name in _FUNCTIONS:
            if hasattr(functional, name):
                setattr(functional, name, self._function(getattr(functional, name), name))
        work: Any = dist.Work
        work.wait = self._wait(work.wait)

    def open(self, frames: list[FrameType]) -> Begun | None:
        """What the main thread waits for; else what it began last, unless that is known to have ended.

        ``frames`` are that thread's, from the innermost outward.
        """
        if self._waited is not None:
            return self._waited
        last, work = self._last, self._work
        if last is None or sequence(self._group, self.count) != last.number:
            # C++ has begun another one since.
            return None
        if work is None:
            last.waited = any(frame.f_code.co_name == _WAIT_TENSOR for frame in frames[:_NEAR])
            return last
        found = work()
        # Where nobody holds it, nobody can wait for it.
        return None if found is None or found.is_completed() else last

    def _method(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(method)
        def begin(group: Any, *args: Any, **kwargs: Any) -> Any:
            begun = self._note(name, group, [*args, *kwargs.values()])
            # It may wait itself, asynchronous or not.
            with self._waiting(begun):
                work = method(group, *args, **kwargs)
            self._begin(begun, group, work)
            return work

        return begin

    def _function(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        bind = inspect.signature(function).bind

        @functools.wraps(function)
        def begin(*args: Any, **kwargs: Any) -> Any:
            found = function(*args, **kwargs)
            # A compiler that reads this is to find torch's own and no more.
            if not torch.compiler.is_compiling():
                with contextlib.suppress(Exception):
                    asked = bind(*args, **kwargs).arguments
                    group = _group(asked["group"])
                    self._begin(self._note(name, group, list(asked.values())), group, None)
            return found

        return begin

    def _wait(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(wait)
        def wait_for(work: Any, *args: Any, **kwargs: Any) -> Any:
            with self._waiting(self._begun.get(work)):
                return wait(work, *args, **kwargs)

        return wait_for

    def _note(self, name: str, group: Any, values: list[Any]) -> Begun:
        tensors = _tensors(values)
        shapes = [list(tensor.shape) for tensor in tensors[:1]]
        dtype = str(tensors[0].dtype).removeprefix("torch.") if tensors else ""
        return Begun(name, shapes, dtype, _title(group))

    def _begin(self, begun: Begun, group: Any, work: Any) -> None:
        """It was begun; of a functional one there is no ``work``."""
        self.count += not begun.group
        begun.number = sequence(group, self.count)
        self._last, self._group = begun, group
        self._work = None
        # A vendor's may be of a class that nothing can refer to weakly: as if it had none.
        with contextlib.suppress(TypeError):
            if work is not None:
                self._work = weakref.ref(work)
                self._begun[work] = begun

    @contextlib.contextmanager
    def _waiting(self, begun: Begun | None) -> Iterator[None]:
        """While the main thread is in it, it waits for that; the outermost one counts."""
        if begun is None or self._waited or threading.current_thread() is not _MAIN:
            yield
            return
        begun.waited, self._waited = True, begun
        try:
            yield
        finally:
            begun.waited, self._waited = False, None


def sequence(group: Any, otherwise: int) -> int:
    """How many collectives a group has begun; ``otherwise`` where it does not count them."""
    try:
        return int(group._get_sequence_number_for_group())
    except (AttributeError, RuntimeError):
        return otherwise


def _title(group: Any) -> str:
    if group is None:
        return "that it does not tell"
    default = group is dist.distributed_c10d._get_default_group()
    return "" if default else f"{group.group_desc} ({group.group_name})"


def _group(value: Any) -> Any:
    """The process group that a functional collective was given in one form or another, or None."""
    if isinstance(value, dist.ProcessGroup):
        return value
    if isinstance(value, list):
        # Ranks: to look for their group could make one.
        return None
    return _resolve_process_group(functional._resolve_group_name(value))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for one in value for tensor in _tensors(one)]
    return []
