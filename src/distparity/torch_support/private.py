"""Every private part of torch that ranks use: by its name, in one place, and each may be gone.

What is asked by these is for diagnostics and cleanliness (stacks, names of collectives, state that a
case leaves behind, DTensor's caches). Where a release renames one, that is missing and the suite
runs; :func:`gone` says which are. ``distparity doctor`` prints them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

__all__ = [
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
    "tell_native_stacks",
]

_C10D = "torch._C._distributed_c10d"
#: What is asked for, by what it is for: one of these modules and names is enough.
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
    """One of :data:`PARTS`, or None."""
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
        # Made by C++, some are attributes and no modules.
        parent, _, name = path.rpartition(".")
        return getattr(importlib.import_module(parent), name, None)


def gone() -> list[str]:
    """What this torch does not have, each by what it is for."""
    return [name for name in PARTS if _part(name) is None]


def _ask(name: str, *arguments: Any) -> Any:
    """What a function says; None where there is no such function."""
    part = _part(name)
    return None if part is None else part(*arguments)


def tell_native_stacks() -> None:
    """Have this process write the native stacks of all its threads to stderr when it dies."""
    _ask("native stacks of a rank that dies", True)


def flight_recorders() -> list[Callable[[], bytes]]:
    """What tells, as JSON, which collectives were recorded: of all backends since 2.8, and NCCL's."""
    found = ("the flight recorder of any backend", "the flight recorder of NCCL")
    return [part for part in map(_part, found) if part is not None]


def resolve_group(value: Any) -> Any:
    """The process group that a functional collective was given, by whatever names it; or None."""
    name = _ask("names of groups of functional collectives", value)
    return None if name is None else _ask("groups of functional collectives", name)


def default_store() -> dist.Store | None:
    """The store with which the process group was made."""
    found: dist.Store | None = _ask("the store of the process group")
    return found


def process_groups() -> list[dist.ProcessGroup] | None:
    """The groups that this process is in; None where torch does not tell."""
    groups = getattr(_part("all process groups"), "pg_map", None)
    return None if groups is None else list(groups)


def future_type() -> type | None:
    """The class of torch's futures."""
    found: type | None = _part("futures")
    return found


def modes() -> tuple[int | None, int | None]:
    """How many function modes and dispatch modes are on."""
    return _ask("function modes"), _ask("dispatch modes")


def open_autocasts() -> bool | None:
    """Whether an autocast is on for any type of device."""
    found: bool | None = _ask("open autocasts")
    return found


def autograd_settings() -> tuple[bool | None, str]:
    """Whether backwards use threads, and the hooks that saved tensors have by default."""
    return _ask("threads of backwards"), str(_ask("hooks of saved tensors", True))


def forget_dtensor() -> None:
    """Have DTensor look at the next operation of every kind as if it were the first.

    It decides once how an operation is distributed and how its inputs get there, and keeps both, by
    the placements and shapes of tensors and by some of the other arguments. Where one is left out
    that matters, an operation takes what an earlier one was called with
    (``defects/dtensor_first_number.py``, ``defects/dtensor_gather_again.py``): what a case computes
    would depend on what ran before it in the same process.

    Costs next to nothing where nobody has used DTensor. Later releases keep what they decided in C++
    as well, that of each thread apart: there it is this thread's.
    """
    for path, name in PARTS["DTensor's dispatcher"]:
        dtensor: Any = getattr(sys.modules.get(path), name, None)
        # Later releases may keep it elsewhere.
        with contextlib.suppress(AttributeError, KeyError):
            _empty(dtensor._op_dispatcher.sharding_propagator)
            redistribute = sys.modules[f"{path.rpartition('.')[0]}._redistribute"]
            redistribute._gen_transform_infos.cache_clear()
            break
    _ask("DTensor's cache in C++")


def _empty(propagator: Any) -> None:
    kept = propagator.propagate_op_sharding
    if hasattr(kept, "cache"):
        # A cache of each thread: a new one is new to all of them.
        propagator.propagate_op_sharding = type(kept)(propagator.propagate_op_sharding_non_cached)
    else:
        kept.cache_clear()
    for value in vars(type(propagator)).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
