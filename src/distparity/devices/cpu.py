"""The CPU: always available, any number of ranks, gloo."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from distparity.devices.base import Device

__all__ = ["DEVICE"]


class Cpu(Device):
    kind = "cpu"

    def environment(self, index: int) -> dict[str, str]:
        # Some wrappers look for an accelerator by themselves; a rank on the CPU must find none.
        return {
            "CUDA_VISIBLE_DEVICES": "",
            "HIP_VISIBLE_DEVICES": "",
            # An empty ZE_AFFINITY_MASK would have no effect.
            "ONEAPI_DEVICE_SELECTOR": "*:cpu",
            "ASCEND_RT_VISIBLE_DEVICES": "",
        }

    def absent(self) -> str | None:
        return None

    def count(self) -> int:
        return 1

    def most_ranks(self) -> int | None:
        return None

    def describe(self) -> str:
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
        return platform.machine()

    def backend(self) -> str:
        return "gloo"

    def take(self, index: int) -> Any:
        import torch

        return torch.device("cpu")

    def forget_peak(self) -> None:
        """Nothing to do: the memory of the process is not counted."""

    def peak_memory(self) -> int | None:
        return None

    def seed(self, seed: int) -> None:
        """Nothing to do: the CPU's generator is seeded separately."""

    def synchronize(self) -> None:
        """Nothing is asynchronous here."""


DEVICE = Cpu()
