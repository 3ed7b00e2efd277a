"""What distparity asks of a kind of device.

Every method below runs in a rank process (or in a child that only looks), never in the process
that runs pytest, and none of them may be called at import.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Device"]


class Device:
    """One kind of device: how it is found, taken, seeded, and what it cannot do.

    The defaults serve any accelerator whose device module torch knows
    (``torch.get_device_module``); a subclass says what differs.
    """

    #: torch's device type: ``torch.device(kind)``.
    kind: str

    def environment(self, local_rank: int) -> dict[str, str]:
        """Variables a rank needs before anything of the device is imported."""
        return {}

    def load(self) -> None:
        """Import what registers the device with torch; raises ``ImportError`` when it is not here."""

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
        """How many there are; the largest world that gives every rank one of its own."""
        return int(self.module().device_count())

    def most_ranks(self) -> int | None:
        """The largest world on this machine, or None when the device sets no bound."""
        return self.count()

    def describe(self) -> str:
        """The device's name, as its driver gives it."""
        name = getattr(self.module(), "get_device_name", None)
        return str(name(0)) if name is not None else self.kind

    def backend(self) -> str:
        """The collective backend for the device under the torch that is imported."""
        raise NotImplementedError

    def backend_version(self) -> str:
        """The backend's own version, or where it comes from when it has none to ask."""
        import torch

        return f"torch {torch.__version__}"

    def lacks(self) -> dict[str, str]:
        """Dtypes, by torch's name, that the device cannot compute in, each with the fact asked."""
        return {}

    def take(self, local_rank: int) -> Any:
        """Make one device this process's own; returns the ``torch.device``."""
        import torch

        self.module().set_device(local_rank)
        return torch.device(self.kind, local_rank)

    def seed(self, seed: int) -> None:
        """Seed the device's generators."""
        seeder = getattr(self.module(), "manual_seed_all", None)
        if seeder is not None:
            seeder(seed)

    def synchronize(self) -> None:
        """Wait for everything the device was given, so that its errors come to light here."""
        # Without an argument: one vendor's takes none.
        self.module().synchronize()


def ask_float64(kind: str) -> str | None:
    """Multiply two float64 matrices on the device; returns None, or how that failed."""
    import torch

    try:
        value = torch.ones(2, 2, dtype=torch.float64, device=kind)
        (value @ value).sum().item()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return f"a float64 matmul raises {type(error).__name__}: {error}".splitlines()[0]
    return None
