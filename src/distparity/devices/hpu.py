"""Intel Gaudi, through Habana's own build of torch."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from distparity.devices.base import Device

__all__ = ["DEVICE"]


MODE = "PT_HPU_LAZY_MODE"


class Hpu(Device):
    kind = "hpu"
    packages = ("habana_frameworks",)
    exclusive = True
    refuses: ClassVar = {
        "Unsupported ReduceOp for HCCL": "hpu: HCCL supports only MIN, MAX, SUM and PRODUCT",
    }
    no_reductions: ClassVar = {"AVG": "hpu: HCCL supports only MIN, MAX, SUM and PRODUCT"}

    def environment(self, index: int) -> dict[str, str]:
        # Read while the bridge is imported. FSDP needs eager mode; a user's choice of lazy mode is kept.
        # The module's number must also be set before that import.
        return {MODE: os.environ.get(MODE, "0"), "HLS_MODULE_ID": _module_id(index)}

    def load(self) -> None:
        import habana_frameworks.torch.core  # type: ignore[import-not-found]
        import habana_frameworks.torch.distributed.hccl  # type: ignore[import-not-found]  # noqa: F401

    def describe(self) -> str:
        mode = "eager" if os.environ.get(MODE) == "0" else "lazy"
        return f"{super().describe()} ({mode} mode)"

    def backend(self) -> str:
        return "cpu:gloo,hpu:hccl"

    def backend_version(self) -> str:
        from importlib.metadata import version

        return f"habana-torch-plugin {version('habana-torch-plugin')}"

    def lacks(self) -> dict[str, str]:
        # By default HCCL transfers 8-byte types as 4-byte ones, so a float64 collective loses precision;
        # see the bridge's PT_ENABLE_INT64_SUPPORT.
        return {"float64": "hpu: HCCL does not support float64"}

    def take(self, index: int) -> Any:
        import torch

        # A process owns one module; its index in the process is always 0.
        return torch.device("hpu", 0)

    def exact(self) -> None:
        self.module().setDeterministic(True)


def _module_id(index: int) -> str:
    """The number of a module, from those that the machine's scheduler assigned, or from all."""
    visible = [word for word in os.environ.get("HABANA_VISIBLE_MODULES", "").split(",") if word]
    return visible[index] if index < len(visible) else str(index)


DEVICE = Hpu()
