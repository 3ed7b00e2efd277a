"""Wrappers around what begins a collective: the process group's methods and the functional collectives.

Nothing is around them unless the collective log is kept, or ranks are delayed before they call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as functional

from distparity.torch_support import private

__all__ = [
    "COPIES",
    "FUNCTIONS",
    "METHODS",
    "before_each",
    "before_each_copy",
    "functions",
    "methods",
    "replace",
]

#: The methods of a process group, some with an older and a newer name, and their public names.
METHODS = {
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
#: torch's functional collectives. C++ begins them, and their results are waited for.
FUNCTIONS = (
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
#: What copies tensors, and what resharding gives memory back and takes it again with.
COPIES: tuple[tuple[Any, str], ...] = (
    (torch, "_foreach_copy_"),
    (torch.Tensor, "copy_"),
    (torch.Tensor, "cpu"),
    (torch.Tensor, "to"),
    (torch.UntypedStorage, "resize_"),
)

Wrap = Callable[[Callable[..., Any], str], Callable[..., Any]]


def methods(wrap: Wrap) -> None:
    """Replace each method that begins a collective by ``wrap(method, name)``, until this process ends.

    Raises ``ValueError`` if there is no default process group.
    """
    theirs = _own_classes(type(dist.group.WORLD))
    for method, name in METHODS.items():
        replace(dist.ProcessGroup, method, lambda plain, name=name: wrap(plain, name))
        # A vendor's group may be a Python class of its own, while other groups are torch's.
        own = next((kind for kind in theirs if method in vars(kind)), None)
        if own is not None:
            setattr(own, method, wrap(getattr(own, method), name))


def functions(wrap: Wrap) -> None:
    """Replace each functional collective by ``wrap(function, name)``, until this process ends."""
    for name in FUNCTIONS:
        if hasattr(functional, name):
            setattr(functional, name, wrap(getattr(functional, name), name))


def before_each(act: Callable[[], None]) -> None:
    """Call ``act`` before each collective that Python begins, until this process ends."""

    def wrap(call: Callable[..., Any], name: str) -> Callable[..., Any]:  # noqa: ARG001
        return _after(act, call)

    methods(wrap)
    functions(wrap)


def before_each_copy(act: Callable[[], None]) -> None:
    """Call ``act`` before each of :data:`COPIES` that Python begins, until this process ends."""
    for owner, name in COPIES:
        if hasattr(owner, name):
            setattr(owner, name, _after(act, getattr(owner, name)))


def _after(act: Callable[[], None], call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def begin(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        # A compiler that traces this must see only torch's own function, and a dispatch mode only what
        # the program does: torch derives shapes and shardings within one, where nothing moves.
        _, dispatch_modes = private.modes()
        if not torch.compiler.is_compiling() and not dispatch_modes:
            act()
        return call(*args, **kwargs)

    return begin


class _Wrapped:
    """A method of one of torch's C++ classes, wrapped for objects of exactly that class.

    A class in Python that inherits the method must find torch's own: torch takes any Python function
    there for an override and calls it, and the wrapper would call torch again, without end.
    """

    def __init__(self, owner: type, name: str, wrap: Callable[..., Any]) -> None:
        before = vars(owner)[name]
        again = isinstance(before, _Wrapped)
        self._owner, self._plain = owner, before._plain if again else before
        self._wrapped = wrap(before._wrapped if again else getattr(owner, name))

    def __get__(self, one: Any, kind: type | None = None) -> Any:
        wrapped = one is not None and type(one) is self._owner
        return (self._wrapped if wrapped else self._plain).__get__(one, kind)


def replace(owner: Any, name: str, wrap: Callable[..., Any]) -> None:
    """Replace a method of a class by ``wrap(method)``, if the class itself defines it."""
    if name in vars(owner):
        setattr(owner, name, _Wrapped(owner, name, wrap))


def _own_classes(kind: type) -> list[type]:
    """A group's class and its bases, as far as they are not torch's."""
    bases = kind.__mro__
    return list(bases[: bases.index(dist.ProcessGroup)])
