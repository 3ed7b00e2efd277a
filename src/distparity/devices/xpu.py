"""Intel's GPUs."""

from __future__ import annotations

from distparity.devices.base import Device, ask_float64

__all__ = ["DEVICE"]


class Xpu(Device):
    kind = "xpu"
    packages = ("intel_extension_for_pytorch", "oneccl_bindings_for_pytorch")

    def load(self) -> None:
        here = self.module() is not None and self.module().is_available()
        if here and not _has_xccl():
            import oneccl_bindings_for_pytorch  # type: ignore[import-not-found]  # noqa: F401

    def installed(self) -> str:
        import torch

        build = getattr(torch.version, "xpu", None)
        return f"torch for XPU {build}" if build else super().installed()

    def backend(self) -> str:
        return "cpu:gloo,xpu:xccl" if _has_xccl() else "cpu:gloo,xpu:ccl"

    def backend_version(self) -> str:
        if _has_xccl():
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


def _has_xccl() -> bool:
    """Whether torch itself has the collectives: wheels since 2.8 do, and some earlier builds.

    If not, they come from Intel's bindings.
    """
    from torch import distributed

    asked = getattr(distributed, "is_xccl_available", None)
    return asked is not None and bool(asked())


DEVICE = Xpu()
