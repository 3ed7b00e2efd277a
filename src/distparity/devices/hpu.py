"""Intel Gaudi, through Habana's own build of torch."""

from __future__ import annotations

from typing import Any

from distparity.devices.base import Device

__all__ = ["DEVICE"]


class Hpu(Device):
    kind = "hpu"

    def environment(self, local_rank: int) -> dict[str, str]:
        # The bridge chooses its module from these while it is imported, and FSDP needs eager mode.
        return {"LOCAL_RANK": str(local_rank), "PT_HPU_LAZY_MODE": "0"}

    def load(self) -> None:
        import habana_frameworks.torch.core  # type: ignore[import-not-found]
        import habana_frameworks.torch.distributed.hccl  # type: ignore[import-not-found]  # noqa: F401

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


DEVICE = Hpu()
