"""Intel's GPUs."""

from __future__ import annotations

from distparity.devices.base import Device, ask_float64
from distparity.torchversion import installed

__all__ = ["DEVICE"]

#: In the wheels from 2.8 on; before, the collectives come from Intel's bindings.
XCCL_IN_TREE = (2, 8)


class Xpu(Device):
    kind = "xpu"

    def load(self) -> None:
        if (
            installed() < XCCL_IN_TREE
            and self.module() is not None
            and self.module().is_available()
        ):
            import oneccl_bindings_for_pytorch  # type: ignore[import-not-found]  # noqa: F401

    def backend(self) -> str:
        return "cpu:gloo,xpu:xccl" if installed() >= XCCL_IN_TREE else "cpu:gloo,xpu:ccl"

    def backend_version(self) -> str:
        if installed() >= XCCL_IN_TREE:
            return super().backend_version()
        import oneccl_bindings_for_pytorch as bindings

        return f"oneccl_bindings_for_pytorch {bindings.__version__}"

    def exact(self) -> None:
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)

    def lacks(self) -> dict[str, str]:
        # Client GPUs have no float64 unit.
        fact = ask_float64(self.kind)
        return {} if fact is None else {"float64": f"xpu: {fact}"}


DEVICE = Xpu()
