"""The interface of a kind of device.

A rank process calls ``environment``, ``load``, ``take``, ``exact``, ``backend``; then, for each case,
``findings``, ``seed``, ``forget_peak``, ``synchronize``, ``peak_memory`` and ``findings`` again. The
probe calls ``environment``, ``absent`` and, if there is a device, the methods that identify it.

All of this runs in rank processes or in the probe, never in the process that runs pytest. A device's
module must not touch the device when it is imported, because ranks are forked after that. So it
imports torch inside its methods, and the vendor's packages in :meth:`load`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from distparity.core import device_kinds

__all__ = ["Device", "Sharing", "ask_float64", "autoload"]


@dataclass(frozen=True)
class Sharing:
    """A way for several ranks to compute on one device: with another backend, or with a switch."""

    #: The backend for ``init_process_group``.
    backend: str
    #: One word, by which the user chooses this way.
    name: str
    #: Environment variables that a rank needs for it before it takes its device.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: What cannot be done in this way, in addition to and in the form of :attr:`Device.refuses`.
    refuses: Mapping[str, str] = field(default_factory=dict)


class Device:
    """One kind of device: how to find, take and seed it, and what it cannot do.

    Only :attr:`kind` is required. The defaults work for any accelerator that has a device module in
    torch (``torch.cuda``, ``torch.<kind>``); a subclass overrides what differs. An exception in a
    method is reported with the names of the plug-in and the method.
    """

    # -- declared ------------------------------------------------------------------------------

    #: torch's device type, as in ``torch.device(kind)``; also the name for ``--device``.
    kind: str

    #: Reductions that the collective backend does not support, by their names in
    #: ``torch.distributed.ReduceOp``, each with the reason in one line. Strategies that can avoid them
    #: do so (FSDP2 sums and divides if there is no ``AVG``).
    no_reductions: ClassVar[Mapping[str, str]] = {}

    #: Errors by which the device refuses something: a regular expression for the error's text, and
    #: the fact in one line. A case in which torch or :attr:`packages` raises such an error is *not
    #: supported*; any other exception is a failure. A pattern that matches everything is an error.
    refuses: ClassVar[Mapping[str, str]] = {}

    #: The vendor's top-level packages. Only exceptions raised inside torch or these packages count as
    #: a refusal by the device.
    packages: ClassVar[tuple[str, ...]] = ()

    #: Why a sum over ranks may have different last bits on different ranks. None means that all ranks
    #: get the same bits, and replicas that differ in one bit fail. If the backend's all-reduce adds in
    #: a different order on each rank, say so in one line: replicas may then differ by as much as the
    #: order of a sum explains, and the line is shown with every result.
    sums_apart: ClassVar[str | None] = None

    #: torch's device type of the device's tensors, if it is not :attr:`kind`.
    computes_on: ClassVar[str | None] = None

    #: Additional seconds for a world to start, beyond the 120 seconds that every device has.
    start_seconds: ClassVar[float] = 0.0

    #: How many times the time limit of a case its cases have: more than 1 for a device that is computed
    #: by the host.
    slowness: ClassVar[float] = 1.0

    #: Whether a process that has taken a device keeps it to itself until it ends, busy or idle.
    exclusive: ClassVar[bool] = False

    # -- before anything is imported -----------------------------------------------------------

    def environment(self, index: int) -> dict[str, str]:
        """Environment variables that a rank needs before anything of the device is imported.

        ``index`` says which of this machine's devices is the rank's, from 0. It is not the rank:
        several worlds may run at the same time, each on its own devices. Use it for the choice of a
        device by a variable (one process per device), and for switches that a driver reads once.
        """
        return {}

    def load(self) -> None:
        """Import the packages that register the device and its collectives with torch.

        Raises ``ImportError`` if they are not installed: the device is then *not available*, with
        the error as the reason. It may be called again in the same process.

        ``import torch`` itself loads no such packages here, so that :meth:`environment` comes first.
        The default loads the packages with an entry point ``torch.backends``, unless torch knows the
        device already.
        """
        if self.module() is None:
            autoload()

    # -- what this machine has -------------------------------------------------------------------

    def absent(self) -> str | None:
        """Why there is no such device here: the check that was made and its answer; None if there is one."""
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

    def installed(self) -> str:
        """What of the device is installed here, for the reader; empty for nothing.

        It is asked if there is no usable device. If something is installed, a run on all devices
        names it, with the reason of :meth:`absent`. The default is the first of :attr:`packages`, or
        the package of this class, that Python can find.
        """
        own = type(self).__module__.partition(".")[0]
        names = [*self.packages, *[own] * (own != __name__.partition(".")[0])]
        return next((name for name in names if importlib.util.find_spec(name)), "")

    def module(self) -> Any:
        """torch's module for the device (``torch.cuda``, ...); None if this torch has none."""
        import torch

        return getattr(torch, self.kind, None)

    def count(self) -> int:
        """How many devices this machine has."""
        return int(self.module().device_count())

    def groups(self) -> Sequence[Sequence[int]]:
        """The devices of this machine that belong together, by their indices, group by group.

        All ranks of a world on this machine are in one group: for example the cards of one board, if
        boards are not connected. A device in no group is not used. By default all are one group.
        """
        return (range(self.count()),)

    def most_ranks(self) -> int | None:
        """The largest world size on this machine; None if the device sets no limit.

        Larger cases are *not available*. By default, every rank needs its own device, in one group.
        """
        return max(map(len, self.groups()), default=0)

    def describe(self) -> str:
        """The device's name, from its driver."""
        name = getattr(self.module(), "get_device_name", None)
        return str(name(0)) if name is not None else self.kind

    def backend(self) -> str:
        """The backend for ``init_process_group``, for example ``nccl`` or ``cpu:gloo,sim:simccl``.

        The default is torch's default backend for the device type. torch has one for its own devices,
        and for others after ``Backend.register_backend(..., devices=[kind])``. Raises
        ``LookupError`` if there is none.
        """
        from torch.distributed import Backend

        found: str | None = Backend.default_device_backend_map.get(self.kind)
        if found is None:
            raise LookupError(f"torch.distributed has no backend on record for {self.kind!r}")
        return found

    def backend_version(self) -> str:
        """The backend's version, or the package that it comes with."""
        import torch

        return f"torch {torch.__version__}"

    def sharing(self) -> Sequence[Sharing]:
        """Ways for several ranks to share one device (``--share-devices``), the best first.

        By default there is none.
        """
        return ()

    def lacks(self) -> dict[str, str]:
        """Dtypes, by torch's name, that the device cannot compute in, each with the reason.

        Cases in these dtypes are *not supported*, with that reason.
        """
        return {}

    # -- in a rank -----------------------------------------------------------------------------

    def take(self, index: int) -> Any:
        """Make one device the current device of this process; returns its ``torch.device``.

        ``index`` is the one that :meth:`environment` got.
        """
        import torch

        module = self.module()
        module.set_device(index)
        # If a process sees only its own device, that is device 0, whatever the index.
        return torch.device(self.kind, module.current_device())

    def exact(self) -> None:
        """Switch off features that trade exactness or determinism for speed, such as TF32."""

    def seed(self, seed: int) -> None:
        """Seed the device's random generators; the CPU's generator is seeded separately."""
        seeder = getattr(self.module(), "manual_seed_all", None)
        if seeder is not None:
            seeder(seed)

    def synchronize(self) -> None:
        """Wait until the device has finished all its work; its errors are raised here."""
        # Without an argument: the function of one vendor takes none.
        self.module().synchronize()

    def keep_busy(self, device: Any, seconds: float) -> None:
        """Queue work of about ``seconds`` on the current stream of ``device``, for ``--perturb``.

        It must not wait for that work. By default it is the module's own sleep kernel if it has one (as
        torch.cuda), else products of matrices of 1 ms each; the CPU has no streams, and does nothing.
        """
        if device.type == "cpu":
            return
        sleep = getattr(self.module(), "_sleep", None)
        if sleep is not None:
            # In cycles of a clock of about 1.5 GHz.
            sleep(int(seconds * 1.5e9))
            return
        import torch

        one = torch.zeros(512, 512, device=device)
        for _ in range(max(1, round(seconds * 1e3))):
            one = one @ one

    def findings(self) -> Sequence[str]:
        """Problems that the device has detected since the last call, one line each.

        This is for a device that watches its own work, for example for memory accesses without an
        order between them. A case whose numbers are right fails if there is any. It is called before
        and after each task of a rank. By default there are none.
        """
        return ()

    def replay(self) -> dict[str, str]:
        """Environment variables that decide how the device behaves, with their current values.

        The command that runs a case again sets them.
        """
        return {}

    def forget_peak(self) -> None:
        """Reset the peak of the memory in use, if the device counts it."""
        forget = getattr(self.module(), "reset_peak_memory_stats", None)
        if forget is not None:
            forget()

    def free_memory(self) -> int | None:
        """The free memory of this rank's device, in bytes; None if it does not tell."""
        told = getattr(self.module(), "mem_get_info", None)
        return None if told is None else int(told()[0])

    def peak_memory(self) -> int | None:
        """The peak of the memory in use since :meth:`forget_peak`, in bytes; None if not counted."""
        peak = getattr(self.module(), "max_memory_allocated", None)
        return None if peak is None else int(peak())


@cache
def autoload() -> None:
    """Load the backends that packages announce by entry points, as ``import torch`` does elsewhere.

    Does nothing with ``TORCH_DEVICE_BACKEND_AUTOLOAD=0``, and with torch 2.4, which has no autoload.
    Raises ``ImportError`` if a backend cannot be loaded.
    """
    import torch

    load = getattr(torch, "_import_device_backends", None)
    if load is None or os.environ.get(device_kinds.AUTOLOAD, "1") != "1":
        return
    try:
        load()
    except RuntimeError as error:
        raise ImportError(f"{error} {error.__cause__!r}") from error


def ask_float64(kind: str) -> str | None:
    """Multiply two float64 matrices on the device; returns why that fails, or None."""
    import torch

    fine = 1 + 2.0**-50
    try:
        value = torch.eye(2, dtype=torch.float64, device=kind)
        found = float((value @ (value * fine))[0, 0].cpu())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return f"a float64 matmul raises {type(error).__name__}: {error}".splitlines()[0]
    return None if found == fine else f"a float64 matmul returns {found!r}, expected {fine!r}"
