"""Every private API of torch that ranks use, by name, in one place. Each may be missing.

They serve diagnostics and the leak check (stacks, names of collectives, state that a case leaves,
DTensor's caches). If a release renames one, that diagnostic is missing and the suite still runs.
:func:`gone` lists the missing ones, and ``distparity doctor`` prints them.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

__all__ = [
    "SANITIZER",
    "autograd_settings",
    "default_store",
    "flight_recorders",
    "forget_dtensor",
    "future_type",
    "gone",
    "modes",
    "open_autocasts",
    "process_groups",
    "resolve_group",
    "sanitize",
    "sanitizer_reports",
    "set_timeout",
    "tell_native_stacks",
]

#: With it, ``import torch`` switches its sanitizer of streams on.
SANITIZER = "TORCH_CUDA_SANITIZER"
_C10D = "torch._C._distributed_c10d"
#: By purpose: the alternatives (module, name), of which one is enough.
PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "native stacks of a rank that dies": (("torch._C", "_set_print_stack_traces_on_fatal_signal"),),
    "the flight recorder of any backend": ((_C10D, "_dump_fr_trace_json"),),
    "the flight recorder of NCCL": ((_C10D, "_dump_nccl_trace_json"),),
    "groups of functional collectives": ((_C10D, "_resolve_process_group"),),
    "names of groups of functional collectives": (
        ("torch.distributed._functional_collectives", "_resolve_group_name"),
    ),
    "the store of the process group": (
        ("torch.distributed.distributed_c10d", "_get_default_store"),
    ),
    "all process groups": (("torch.distributed.distributed_c10d", "_world"),),
    "time limits of process groups": (("torch.distributed.distributed_c10d", "_set_pg_timeout"),),
    "futures": (("torch._C", "Future"),),
    "function modes": (("torch._C", "_len_torch_function_stack"),),
    "dispatch modes": (("torch._C", "_len_torch_dispatch_stack"),),
    "open autocasts": (("torch._C", "_is_any_autocast_enabled"),),
    "threads of backwards": (("torch._C", "_is_multithreading_enabled"),),
    "hooks of saved tensors": (("torch._C._autograd", "_top_saved_tensors_default_hooks"),),
    "DTensor's dispatcher": (
        ("torch.distributed.tensor._api", "DTensor"),
        ("torch.distributed._tensor.api", "DTensor"),
    ),
    "DTensor's cache in C++": (("torch._C", "_clear_DTensor_sharding_propagator_cache"),),
}


def _part(name: str) -> Any:
    """The object for one of :data:`PARTS`; None if this torch has none of its alternatives."""
    for module, attribute in PARTS[name]:
        with contextlib.suppress(ImportError):
            found = getattr(_module(module), attribute, None)
            if found is not None:
                return found
    return None


def _module(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ImportError:
        # Some are made by C++: they are attributes rather than modules.
        parent, _, name = path.rpartition(".")
        return getattr(importlib.import_module(parent), name, None)


def gone() -> list[str]:
    """The purposes that this torch has no API for."""
    return [name for name in PARTS if _part(name) is None]


def _ask(name: str, *arguments: Any) -> Any:
    """Call a function; returns None if this torch does not have it."""
    part = _part(name)
    return None if part is None else part(*arguments)


def tell_native_stacks() -> None:
    """Make this process write the native stacks of all threads to stderr when it dies."""
    _ask("native stacks of a rank that dies", True)


def flight_recorders() -> list[Callable[[], bytes]]:
    """Functions that return the flight recorder's entries as JSON: of any backend (2.8), and NCCL's."""
    found = ("the flight recorder of any backend", "the flight recorder of NCCL")
    return [part for part in map(_part, found) if part is not None]


def resolve_group(value: Any) -> Any:
    """The process group for an argument of a functional collective, or None."""
    name = _ask("names of groups of functional collectives", value)
    return None if name is None else _ask("groups of functional collectives", name)


def default_store() -> dist.Store | None:
    """The store of the default process group; None if torch does not tell."""
    found: dist.Store | None = _ask("the store of the process group")
    return found


def process_groups() -> list[dist.ProcessGroup] | None:
    """The process groups of this process; None if torch does not tell."""
    groups = getattr(_part("all process groups"), "pg_map", None)
    return None if groups is None else list(groups)


def set_timeout(group: dist.ProcessGroup, limit: datetime.timedelta) -> None:
    """Set the time that a collective of a group may take, where torch lets us."""
    _ask("time limits of process groups", limit, group)


def future_type() -> type | None:
    """The class of torch's futures."""
    found: type | None = _part("futures")
    return found


def modes() -> tuple[int | None, int | None]:
    """The numbers of active function modes and dispatch modes; None if torch does not tell."""
    return _ask("function modes"), _ask("dispatch modes")


def open_autocasts() -> bool | None:
    """Whether autocast is on for any device type; None if torch does not tell."""
    found: bool | None = _ask("open autocasts")
    return found


def autograd_settings() -> tuple[bool | None, str]:
    """Whether backwards use threads, and the default hooks of saved tensors, as text."""
    return _ask("threads of backwards"), str(_ask("hooks of saved tensors", True))


#: What torch's sanitizer of streams has reported since the last question; None while it is off.
_reports: list[str] | None = None


def sanitize(kind: str) -> None:
    """Switch torch's sanitizer of streams on where its variable asks for it, and keep its reports.

    By itself, it raises them. It must not be on in the fork server: it initialises CUDA.
    """
    global _reports  # noqa: PLW0603  a rank has one device
    if kind != "cuda" or SANITIZER not in os.environ:
        return
    with contextlib.suppress(ImportError, AttributeError):
        sanitizer = importlib.import_module("torch.cuda._sanitizer")
        handler = sanitizer.cuda_sanitizer.dispatch.event_handler
        launch = handler._handle_kernel_launch
        kept = _reports = []

        def keep(*arguments: Any, **named: Any) -> list[Any]:
            kept.extend(map(_said, launch(*arguments, **named)))
            return []

        handler._handle_kernel_launch = keep
        sanitizer.enable_cuda_sanitizer()


def sanitizer_reports() -> list[str] | None:
    """What the sanitizer has reported since the last call, a line each; None if it is off."""
    if _reports is None:
        return None
    found = list(_reports)
    _reports.clear()
    return found


def _said(error: Any) -> str:
    """A report of the sanitizer in a line: which accesses have no order."""
    accesses = (error.previous_access, error.current_access)
    told = [
        f"the {access.type.name.lower()} on the stream {access.stream} "
        f"({str(access.operator).partition('(')[0]})"
        for access in accesses
    ]
    return f"no order between {' and '.join(told)}"


def forget_dtensor() -> None:
    """Empty DTensor's caches, so that the next operation of every kind is treated as the first.

    DTensor decides once how an operation and its inputs are distributed, and caches that by the
    placements and shapes of tensors and by some of the other arguments. If the key lacks an argument
    that matters, an operation uses the value of an earlier call
    (``defects/dtensor_first_number.py``, ``defects/dtensor_gather_again.py``): the result of a case
    would depend on what ran before it in the same process.

    This costs almost nothing if DTensor was not used. Later releases also have a cache in C++ for each
    thread; there, only the cache of this thread is emptied.
    """
    for path, name in PARTS["DTensor's dispatcher"]:
        dtensor: Any = getattr(sys.modules.get(path), name, None)
        # Later releases may have it elsewhere.
        with contextlib.suppress(AttributeError, KeyError):
            _empty(dtensor._op_dispatcher.sharding_propagator)
            redistribute = sys.modules[f"{path.rpartition('.')[0]}._redistribute"]
            redistribute._gen_transform_infos.cache_clear()
            break
    _ask("DTensor's cache in C++")


def _empty(propagator: Any) -> None:
    kept = propagator.propagate_op_sharding
    if hasattr(kept, "cache"):
        # A cache per thread: a new object is empty for all threads.
        propagator.propagate_op_sharding = type(kept)(propagator.propagate_op_sharding_non_cached)
    else:
        kept.cache_clear()
    for value in vars(type(propagator)).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
