"""What distparity asks of the device."""

from __future__ import annotations

import os
from typing import Any

from distparity.devices import Device


class Sim(Device):
    kind = "sim"

    def load(self) -> None:
        from distparity_sim import register

        register()

    def count(self) -> int:
        return int(os.environ.get("SIM_DEVICE_COUNT", "8"))

    def backend(self) -> str:
        return "simccl"

    def take(self, local_rank: int) -> Any:
        import torch

        # The process has one device of its own.
        return torch.device("sim", 0)
