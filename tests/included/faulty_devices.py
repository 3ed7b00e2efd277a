"""Device plug-ins as they are while they are being written."""

from __future__ import annotations

import os
from typing import Any

from distparity.devices import Device, Sharing


class Absent(Device):
    kind = "faulty"

    def load(self) -> None:
        raise ImportError("libfaulty.so.1: cannot open shared object file")


class Raises(Device):
    kind = "faulty"

    def absent(self) -> str | None:
        raise OSError("no such ioctl")


class Here(Device):
    """It is the CPU, so that there is something to take."""

    kind = "faulty"
    computes_on = "cpu"

    def absent(self) -> str | None:
        return None

    def take(self, index: int) -> Any:
        import torch

        return torch.device("cpu")

    def count(self) -> int:
        return 2

    def backend(self) -> str:
        return "gloo"

    def synchronize(self) -> None:
        pass


class Shares(Here):
    def sharing(self) -> list[Sharing]:
        return [Sharing("gloo", "gloo")]


class Miscounts(Here):
    def count(self) -> int:
        return "two"  # type: ignore[return-value]  # the fault


class Forgets(Here):
    def backend(self) -> str:
        return None  # type: ignore[return-value]  # the fault


class SeedFails(Here):
    def seed(self, seed: int) -> None:
        raise RuntimeError("generator 0 is busy")


class Aborts(Here):
    def synchronize(self) -> None:
        os.abort()


class Alone(Shares):
    def count(self) -> int:
        return 1


class Impostor(Here):
    """Trains on the CPU, and does not say so."""

    computes_on = None  # type: ignore[assignment]  # the fault


class NotADevice:
    kind = "faulty"


class Nameless(Device):
    pass


class Announced(Here):
    """A device whose package torch loads by an entry point, and which reads a switch during that."""

    kind = "announced"

    def environment(self, index: int) -> dict[str, str]:
        return {"ANNOUNCED_SWITCH": f"index {index}"}

    def absent(self) -> str | None:
        self.load()
        return None

    def describe(self) -> str:
        return f"loaded with {self.module().switch}"


class SharesInPart(Here):
    """Its ranks can share it, and then not do what ``refused_alone`` does."""

    def sharing(self) -> list[Sharing]:
        refused = {"shapes cannot be multiplied": "faulty: gloo transfers nothing"}
        return [Sharing("gloo", "gloo", refuses=refused)]
