"""The leak check: compare a process's state after each task with that before the first.

State that a case leaves must never reach the next case. Random generators, which every case advances,
are reset. For anything else that differs, the check names it and the world is replaced, because we
cannot know how to repair it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import inspect
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from distparity.core import processes
from distparity.torch_support import private

if TYPE_CHECKING:
    from distparity.devices import Device

__all__ = ["Snapshot"]

_SIGNALS = [
    getattr(signal, f"SIG{name}")
    for name in ("INT", "TERM", "HUP", "ALRM", "CHLD", "PIPE", "USR1", "USR2", "ABRT", "FPE")
]
_LIMITS = [
    getattr(resource, f"RLIMIT_{name}")
    for name in ("AS", "DATA", "STACK", "FSIZE", "NOFILE", "NPROC", "CPU", "CORE")
]


#: A denormal number: it is not zero, unless the processor flushes denormals.
_SMALLEST = [5e-324]


def _directory() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        return str(error)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _streams() -> Hashable:
    found: list[Hashable] = []
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        found.append((id(stream), getattr(stream, "closed", None)))
        try:
            status = os.fstat(number)
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)


def _interpreter() -> Hashable:
    return (
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        gc.isenabled(),
        id(sys.excepthook),
        tuple(sys.path),
        sys.gettrace() is None,
        sys.getprofile() is None,
    )


def _modes() -> Hashable:
    return private.modes()


def _autocast() -> Hashable:
    return (
        torch.is_autocast_enabled(),
        private.open_autocasts(),
        torch.is_autocast_cache_enabled(),
    )


def _determinism() -> Hashable:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        getattr(torch.utils.deterministic, "fill_uninitialized_memory", None),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


def _precision() -> Hashable:
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
    )


def _autograd() -> Hashable:
    return private.autograd_settings()


def _global_hooks() -> Hashable:
    """The number of global hooks of modules and optimizers."""
    places = (nn.modules.module, sys.modules[torch.optim.Optimizer.__module__])
    return tuple(
        (name, len(value))
        for place in places
        for name, value in sorted(vars(place).items())
        if name.startswith("_global_") and isinstance(value, dict)
    )


def _denormals() -> Hashable:
    """Whether this thread flushes denormals to zero, found by doubling one."""
    return [number * 2.0 for number in _SMALLEST] == [0.0]


def _descriptors() -> Hashable:
    """The open files and devices, by the kernel's names, without the one of this scan itself.

    Sockets, pipes and epoll descriptors do not count: a process group that a case made keeps some.
    """
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  a third of the time
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
            if not target.startswith(("socket:", "pipe:", "anon_inode:", "/proc/")):
                found.add((name, target))
    return frozenset(found)


def _warnings() -> Hashable:
    """The warnings that are errors; libraries may add filters of other kinds at any time."""
    return tuple(found for found in warnings.filters if found[0] == "error")


def _scratch() -> Hashable:
    """The folder for temporary files, and whether it exists."""
    folder = tempfile.gettempdir()
    return folder, os.path.isdir(folder)  # noqa: PTH112


def _user() -> Hashable:
    return (*os.getresuid(), *os.getresgid(), *os.getgroups())


def _priority() -> Hashable:
    affinity = frozenset(os.sched_getaffinity(0))
    return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), affinity


#: Functions of modules and methods of classes that training calls.
_PLACES: list[Any] = [
    nn.functional,
    torch.Tensor,
    torch.autograd,
    dist.distributed_c10d,
    nn.parallel.DistributedDataParallel,
    torch.optim.Optimizer,
    *{
        kind
        for space in (nn, torch.optim)
        for kind in vars(space).values()
        if isinstance(kind, type)
    },
]
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType)


#: Each function by its owner's and its own name; torch may add more at any time.
_WATCHED = [
    (vars(place), name)
    for place in _PLACES
    for name, value in vars(place).items()
    if type(value) in _CODE
]


def _functions() -> Hashable:
    """The identities of these functions. The first optimizer of a class wraps that class's ``step``."""
    return tuple(
        [
            id(names.get(name)) if name != "step" else id(inspect.unwrap(names["step"]))
            for names, name in _WATCHED
        ]
    )


_PROBES: dict[str, Callable[[], Hashable]] = {
    "working directory": _directory,
    "umask": _umask,
    "standard streams": _streams,
    "signal handlers": lambda: tuple(map(signal.getsignal, _SIGNALS)),
    "signal mask": lambda: frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "fault handler": faulthandler.is_enabled,
    "warnings that are errors": _warnings,
    "user": _user,
    "priority or affinity": _priority,
    "open files": _descriptors,
    "temporary files": _scratch,
    "functions of torch": _functions,
    "an alarm": lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0,
    "resource limits": lambda: tuple(map(resource.getrlimit, _LIMITS)),
    "interpreter settings": _interpreter,
    "child processes": processes.have_children,
    "default dtype": torch.get_default_dtype,
    "default device": lambda: str(torch.get_default_device()),
    "thread count": torch.get_num_threads,
    "gradient mode": torch.is_grad_enabled,
    "inference mode": torch.is_inference_mode_enabled,
    "anomaly mode": torch.is_anomaly_enabled,
    "autograd settings": _autograd,
    "hooks of all modules or optimizers": _global_hooks,
    "flushing of denormals": _denormals,
    "function or dispatch modes": _modes,
    "autocast": _autocast,
    "deterministic algorithms": _determinism,
    "matmul precision": _precision,
    "default process group": lambda: id(dist.group.WORLD) if dist.is_initialized() else None,
}


class Snapshot:
    """A process's state before its first task."""

    def __init__(self, kind: Device) -> None:
        self._kind = kind
        self._values = self._look()
        self._environment = dict(os.environ)
        self._threads = set(threading.enumerate())
        self._generators: list[tuple[Callable[[Any], object], Any]] = [
            (torch.set_rng_state, torch.get_rng_state()),
            (random.setstate, random.Random(0).getstate()),  # noqa: S311  no secret is made of it
        ]
        with contextlib.suppress(ImportError):
            from numpy.random import RandomState, set_state

            self._generators.append((set_state, RandomState(0).get_state()))

    def restore_generators(self) -> None:
        """Reset torch's, Python's and numpy's generators to their state at the start of every task.

        Python's and numpy's get a fixed state, because Python seeds a forked process at random.
        """
        for put, state in self._generators:
            put(state)

    def left_behind(self) -> list[str]:
        """What differs now, in words; environment variables by name only, never with their values."""
        now = self._look()
        found = [name for name, value in self._values.items() if now[name] != value]
        if os.environ != self._environment:
            then, names = self._environment, os.environ.keys() | self._environment.keys()
            changed = sorted(n for n in names if os.environ.get(n) != then.get(n))
            found.append(f"environment ({', '.join(changed)})")
        threads = [t.name for t in threading.enumerate() if t not in self._threads]
        if threads:
            found.append(f"threads ({', '.join(threads)})")
        return found

    def _look(self) -> dict[str, Hashable]:
        values = {name: probe() for name, probe in _PROBES.items()}
        module = self._kind.module()
        if self._kind.kind != "cpu" and hasattr(module, "current_device"):
            values["current device"] = module.current_device()
        return values
