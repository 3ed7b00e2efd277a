"""Whatever ``torch.accelerator`` reports: a device without a kind of its own here."""

from __future__ import annotations

from typing import Any

from distparity.core import device_kinds
from distparity.devices.base import Device, ask_float64, autoload

__all__ = ["DEVICE"]


class Accelerator(Device):
    """torch's current accelerator, including a renamed ``PrivateUse1``, by torch's generic API."""

    @property
    def kind(self) -> str:  # type: ignore[override]  # known once torch is asked
        import torch

        found = torch.accelerator.current_accelerator()
        return "accelerator" if found is None else str(found.type)

    def load(self) -> None:
        autoload()

    def absent(self) -> str | None:
        import torch

        try:
            self.load()
        except ImportError as error:
            return f"accelerator: {type(error).__name__}: {error}"
        if not hasattr(torch, "accelerator"):
            return f"accelerator: torch {torch.__version__} has no torch.accelerator"
        if not torch.accelerator.is_available():
            return "accelerator: torch.accelerator.is_available() is False"
        return None

    def installed(self) -> str:
        return ", ".join(device_kinds.announced())

    def module(self) -> Any:
        import torch

        return torch.get_device_module(self.kind)

    def describe(self) -> str:
        return f"{self.kind}, {super().describe()}"

    def lacks(self) -> dict[str, str]:
        fact = ask_float64(self.kind)
        return {} if fact is None else {"float64": f"{self.kind}: {fact}"}


DEVICE = Accelerator()
