"""``sim``: an accelerator that lives in host memory.

It is what a vendor's plug-in is, in small: a renamed ``PrivateUse1`` device (:mod:`.memory`,
:mod:`.operations`), the module ``torch.sim`` (:mod:`.module`), the collective backend ``simccl``
(:mod:`.collectives`) and the few lines that distparity asks for (:mod:`.plugin`). Its tensors are
of device type ``sim``; its arithmetic is the CPU's, unless ``SIM_FAULT`` makes it wrong
(:mod:`.faults`).

What it is not: it has no stream that runs beside another, so it finds no race but the one that
``SIM_FAULT`` makes; every process has one device of its own, ``sim:0``; and an error that is raised
inside a backward pass may abort the process, which torch does to Python devices.

It needs torch 2.10 or newer, where a device can be written in Python.
"""

from __future__ import annotations

import os

__all__ = ["autoload", "register"]

_registered = False


def register() -> None:
    """Make torch know the device; raises ``ImportError`` where torch is too old for that."""
    global _registered  # noqa: PLW0603  a process can rename its device once
    if _registered:
        return
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
    except ImportError:
        import torch

        raise ImportError(
            f"sim needs torch 2.10 or newer, and this is {torch.__version__}"
        ) from None
    from distparity_sim import collectives, memory, module, operations

    _setup_privateuseone_for_python_backend("sim", backend_module=module)
    memory.install()
    operations.install()
    collectives.install()
    _registered = True


def autoload() -> None:
    """What ``import torch`` calls by the entry point ``torch.backends``.

    A vendor's would always register. This one waits for ``SIM_AUTOLOAD=1``, so that it is no
    accelerator of the other tests that share its environment.
    """
    if os.environ.get("SIM_AUTOLOAD") == "1":
        register()
