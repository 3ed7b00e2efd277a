"""Intel Gaudi, through Habana's own build of torch."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from distparity.devices.base import Device

__all__ = ["DEVICE"]


MODE = "PT_HPU_LAZY_MODE"


class Hpu(Device):
    kind = "hpu"
    no_reductions: ClassVar = {"AVG": "hpu: HCCL does MIN, MAX, SUM and PRODUCT"}

    def environment(self, local_rank: int) -> dict[str, str]:
        # Read while the bridge is imported. FSDP needs eager mode; who asks for lazy mode gets it.
        return {MODE: os.environ.get(MODE, "0")}

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
        # HCCL moves 8-byte types as 4-byte ones unless told otherwise, so a float64 collective
        # is not one; see the bridge's PT_ENABLE_INT64_SUPPORT.
        return {"float64": "hpu: HCCL carries no float64"}

    def take(self, local_rank: int) -> Any:
        import torch

        # One process owns one module; its index inside the process is always 0.
        return torch.device("hpu", 0)

    def exact(self) -> None:
        self.module().setDeterministic(True)


DEVICE = Hpu()
