"""What distparity asks of the device: all that a vendor has to write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from distparity.devices import Device, Sharing


class Sim(Device):
    kind = "sim"
    packages = ("distparity_sim",)
    refuses: ClassVar = {
        "getPinnedMemoryAllocator": "sim: a device in Python has no pinned memory",
        "acquiring a stream from pool": "sim: a device in Python has no pool of streams",
        r"Could not run 'aten::\w+' with arguments from the '(CPU|Sparsesim)'": "sim: what the CPU "
        "has no kernel for, or sim no layout, it cannot do",
        "_foreach_norm cannot compute the infinity norm on an empty": "sim: torch clips by foreach "
        "on accelerators, and the CPU's takes no empty shard",
    }
    exclusive = "SIM_EXCLUSIVE" in os.environ

    if os.environ.get("SIM_NO_AVG") == "declared":
        no_reductions: ClassVar = {"AVG": "sim: SIM_NO_AVG is set"}

    def load(self) -> None:
        from distparity_sim import register

        register()

    def groups(self) -> Sequence[Sequence[int]]:
        # SIM_GROUPS="0 1,2 3": two boards.
        named = os.environ.get("SIM_GROUPS")
        if named is None:
            return super().groups()
        return [[int(word) for word in group.split()] for group in named.split(",")]

    def exact(self) -> None:
        from distparity_sim import faults

        faults.exact = True

    def backend(self) -> str:
        return "simccl"

    def backend_version(self) -> str:
        from importlib.metadata import version

        return f"distparity-sim {version('distparity-sim')}"

    def sharing(self) -> Sequence[Sharing]:
        # Its memory is the process's own, so that nothing is in anybody's way.
        return [Sharing("simccl", "simccl")]
