"""``asim``: an accelerator that lives in host memory and whose streams run as late as they may.

To torch it is a device like others (a renamed ``PrivateUse1``): streams, events, pinned memory, a
caching allocator, ``torch.asim`` and ``torch.accelerator``, and collectives (``asimccl``) that run as
NCCL's do. Its arithmetic is the CPU's. What is special: *when* work is done is chosen by a mode
(:mod:`.scheduler`), and every access to memory is held against the order that streams, events and
waits make (:mod:`.checker`). ``docs/order.md`` says how to use it.

Variables, read when the device is registered: ``ASIM_MODE`` (``eager``), ``ASIM_CHECK`` (1; 0 leaves
the checker out), ``ASIM_DEVICE_COUNT`` (4).
"""

from __future__ import annotations

import os

__all__ = ["autoload", "begin", "conclude", "mode", "races", "register"]

_registered = False


def register() -> None:
    """Make torch know the device; it is built first, where it is not yet.

    Raises ``ImportError`` where torch is too old or the device cannot be built, ``ValueError`` for
    an ``ASIM_MODE`` that is none.
    """
    global _registered  # noqa: PLW0603  a process can rename its device once
    if _registered:
        return
    import torch

    from distparity_async import build, collectives, module, operations, state
    from distparity_async.runtime import Runtime
    from distparity_async.scheduler import Mode

    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
        raise ImportError(f"asim needs torch 2.10 or newer, and this is {torch.__version__}")
    mode = Mode.parse(os.environ.get("ASIM_MODE", "eager"))
    native = build.load()
    checks, devices = os.environ.get("ASIM_CHECK", "1"), os.environ.get("ASIM_DEVICE_COUNT", "4")
    runtime = Runtime(native, mode, checks=checks != "0", devices=int(devices))
    state.set_up(runtime, native)
    native.install(runtime, runtime.devices)
    torch.utils.rename_privateuse1_backend("asim")
    torch._register_device_module("asim", module)
    torch.utils.generate_methods_for_privateuse1_backend()
    operations.install(runtime, native)
    collectives.install()
    runtime.watch()
    _registered = True


def autoload() -> None:
    """What ``import torch`` calls by the entry point ``torch.backends``: nothing, without ``ASIM_MODE``."""
    if "ASIM_MODE" in os.environ:
        register()


def begin(mode: str | None = None) -> None:
    """Wait for everything, forget the races that were found, and go on in a mode (the same)."""
    from distparity_async import state
    from distparity_async.scheduler import Mode

    runtime = state.runtime()
    runtime.begin(runtime.mode if mode is None else Mode.parse(mode))


def mode() -> str:
    """The mode that the streams are in, as ``ASIM_MODE`` says it."""
    from distparity_async import state

    return str(state.runtime().mode)


def races() -> list[str]:
    """The pairs of accesses without an order that were seen since :func:`begin`, one text each."""
    from distparity_async import state

    return state.runtime().races()


def conclude(wrong: str) -> int:
    """Print the races and what a program found, in its last line; returns the program's exit code.

    ``wrong`` is what of its numbers is wrong, empty where all are right. The line begins with
    ``defect:`` (the code is 1) where numbers are wrong or accesses have no order, else with
    ``right:`` (0).
    """
    import torch

    found = races()
    print("\n".join(found))
    verdict = "defect" if wrong or found else "right"
    numbers = f"wrong {wrong}" if wrong else "right numbers"
    said = f"{numbers}, {len(found)} pairs of accesses without an order"
    print(f"{verdict}: torch {torch.__version__}, mode {mode()}: {said}")
    return int(verdict == "defect")
