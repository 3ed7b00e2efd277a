"""What distparity asks of a kind of device.

The order in which a rank process asks: ``environment``, ``load``, ``take``, ``exact``, ``backend``;
then, for each case, ``findings``, ``seed``, ``forget_peak``, ``synchronize``, ``peak_memory`` and
``findings`` again. A process that only
looks asks ``environment``, ``absent`` and, where there is a device, the rest of what identifies it.

All of it runs in rank processes (or in a child that looks), never in the process that runs pytest,
and nothing of a device may be touched when its module is imported: ranks are forked after that.
So a device's module imports torch inside its methods, and its vendor's packages in :meth:`load`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

__all__ = ["Device", "Sharing", "ask_float64", "autoload"]


@dataclass(frozen=True)
class Sharing:
    """A way in which several ranks compute on one device: with another backend, or by a switch."""

    #: What ``init_process_group`` is given.
    backend: str
    #: One word, by which a user asks for this way.
    name: str
    #: Variables that a rank needs for it before it takes its device.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: What cannot be done in this way, beside :attr:`Device.refuses` and in its form.
    refuses: Mapping[str, str] = field(default_factory=dict)


class Device:
    """One kind of device: how it is found, taken, seeded, and what it cannot do.

    Only :attr:`kind` has to be given. The rest serves any accelerator that torch knows by a device
    module (``torch.cuda``, ``torch.<kind>``); a subclass says what differs. Whatever a method
    raises is reported with the plug-in's name and the method's.
    """

    # -- declared ------------------------------------------------------------------------------

    #: torch's device type, as in ``torch.device(kind)``; also the name that ``--device`` takes.
    kind: str

    #: Reductions that the collective backend does not do, by their names in
    #: ``torch.distributed.ReduceOp``, each with the fact in one line. Strategies that can do
    #: without are told to (FSDP2 sums and divides where there is no ``AVG``).
    no_reductions: ClassVar[Mapping[str, str]] = {}

    #: What the device refuses by its own word: a regular expression that the error's text matches,
    #: and the fact in one line. A case in which torch or :attr:`packages` raises that is *not
    #: supported*; one in which a rank raises anything else has failed. No pattern may be found in
    #: everything.
    refuses: ClassVar[Mapping[str, str]] = {}

    #: The top-level packages of the device's vendor, beside torch's own: only what came out of those,
    #: or out of torch, is the device's own word.
    packages: ClassVar[tuple[str, ...]] = ()

    #: Why a sum over ranks may have other last bits on one rank than on another, or None: all ranks get
    #: the same bits, and replicas that differ in one fail. Where the backend's all-reduce adds in
    #: an order that is each rank's own, say so in one line: replicas may then differ by as much as
    #: the order of a sum explains, and the line stands with every result.
    sums_apart: ClassVar[str | None] = None

    #: torch's device type of the device's tensors, where that is not :attr:`kind`.
    computes_on: ClassVar[str | None] = None

    #: Seconds that a world may take to start beyond what every device is given (120).
    start_seconds: ClassVar[float] = 0.0

    #: A process that has taken a device keeps it to itself until it ends, busy or not.
    exclusive: ClassVar[bool] = False

    # -- before anything is imported -----------------------------------------------------------

    def environment(self, index: int) -> dict[str, str]:
        """Variables that a rank needs before anything of the device is imported.

        ``index`` says which of this machine's devices is the rank's, from 0. It is not the rank:
        several worlds may be under way, each on devices of its own. Here belong the choice of a
        device by variable (one process a device), and switches that a driver reads once.
        """
        return {}

    def load(self) -> None:
        """Import what registers the device, and its collectives, with torch.

        Raises ``ImportError`` where that is not installed: the device is then not here, for the
        reason that the error gives. It may be called again in the same process.

        ``import torch`` itself has loaded nothing, so that :meth:`environment` comes first. The
        default loads what packages announce to torch (the entry points ``torch.backends``), unless
        torch knows the device already.
        """
        if self.module() is None:
            autoload()

    # -- what is here --------------------------------------------------------------------------

    def absent(self) -> str | None:
        """Why there is no such device here, as the fact that was asked and its answer; or None."""
        try:
            self.load()
        except ImportError as error:
            return f"{self.kind}: {type(error).__name__}: {error}"
        module = self.module()
        if module is None:
            return f"{self.kind}: this torch has no torch.{self.kind}"
        if not module.is_available():
            return f"{self.kind}: torch.{self.kind}.is_available() is False"
        if self.count() < 1:
            return f"{self.kind}: torch.{self.kind}.device_count() is 0"
        return None

    def module(self) -> Any:
        """torch's module for the device (``torch.cuda``, ...), or None where this torch has none."""
        import torch

        return getattr(torch, self.kind, None)

    def count(self) -> int:
        """How many devices this machine has."""
        return int(self.module().device_count())

    def most_ranks(self) -> int | None:
        """The largest world on this machine, or None when the device sets no bound.

        Larger cases are *not available*. The default gives every rank a device of its own.
        """
        return self.count()

    def describe(self) -> str:
        """The device's name, as its driver gives it."""
        name = getattr(self.module(), "get_device_name", None)
        return str(name(0)) if name is not None else self.kind

    def backend(self) -> str:
        """What ``init_process_group`` is given, under the torch that is imported.

        The default is what torch has on record for the device type, which it has for devices of
        its own, and for others once ``Backend.register_backend(..., devices=[kind])`` was called.
        """
        from torch.distributed import Backend

        found: str | None = Backend.default_device_backend_map.get(self.kind)
        if found is None:
            raise LookupError(f"torch.distributed has no backend on record for {self.kind!r}")
        return found

    def backend_version(self) -> str:
        """The backend's own version, or where it comes from when it has none to ask."""
        import torch

        return f"torch {torch.__version__}"

    def sharing(self) -> Sequence[Sharing]:
        """Ways in which several ranks may be on one device (``--share-devices``), the best first.

        The default is that there is none.
        """
        return ()

    def lacks(self) -> dict[str, str]:
        """Dtypes, by torch's name, that the device cannot compute in, each with the fact asked.

        Their cases are *not supported*, for that reason.
        """
        return {}

    # -- in a rank -----------------------------------------------------------------------------

    def take(self, index: int) -> Any:
        """Make one device this process's own; returns the ``torch.device``.

        ``index`` is the one that :meth:`environment` was given.
        """
        import torch

        module = self.module()
        module.set_device(index)
        # Where a process sees no device but its own, that is the first, whatever the index.
        return torch.device(self.kind, module.current_device())

    def exact(self) -> None:
        """Switch off what trades exactness, or the same result every time, for speed."""

    def seed(self, seed: int) -> None:
        """Seed the device's generators; the CPU's is seeded besides."""
        seeder = getattr(self.module(), "manual_seed_all", None)
        if seeder is not None:
            seeder(seed)

    def synchronize(self) -> None:
        """Wait for everything the device was given, so that its errors come to light here."""
        # Without an argument: one vendor's takes none.
        self.module().synchronize()

    def findings(self) -> Sequence[str]:
        """What the device has seen go wrong since it was asked last, one line each.

        A device that watches the work it is given, for example for accesses to memory without an
        order between them, says here what it saw. A case whose numbers are right fails if there is
        any. It is asked before and after each task of a rank; the default sees nothing.
        """
        return ()

    def replay(self) -> dict[str, str]:
        """Variables, as they are set here, that decide what the device does.

        They stand before the command that runs a case again.
        """
        return {}

    def forget_peak(self) -> None:
        """Begin to measure the most memory in use anew, where the device counts it."""
        forget = getattr(self.module(), "reset_peak_memory_stats", None)
        if forget is not None:
            forget()

    def peak_memory(self) -> int | None:
        """The most bytes in use since :meth:`forget_peak`, or None where nobody counts."""
        peak = getattr(self.module(), "max_memory_allocated", None)
        return None if peak is None else int(peak())


@cache
def autoload() -> None:
    """What ``import torch`` does outside of distparity: load the backends that packages announce.

    Raises ``ImportError`` where one cannot be; does nothing with ``TORCH_DEVICE_BACKEND_AUTOLOAD=0``,
    and under torch 2.4, which has no such thing.
    """
    import torch

    load = getattr(torch, "_import_device_backends", None)
    if load is None or os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") != "1":
        return
    try:
        load()
    except RuntimeError as error:
        raise ImportError(f"{error} {error.__cause__!r}") from error


def ask_float64(kind: str) -> str | None:
    """Multiply two float64 matrices on the device; returns None, or the fact that it cannot."""
    import torch

    fine = 1 + 2.0**-50
    try:
        value = torch.eye(2, dtype=torch.float64, device=kind)
        found = float((value @ (value * fine))[0, 0].cpu())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return f"a float64 matmul raises {type(error).__name__}: {error}".splitlines()[0]
    return None if found == fine else f"a float64 matmul makes {found!r} of {fine!r}"
