"""What distparity asks of the device."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from distparity.devices import Device, Sharing


class Asim(Device):
    kind = "asim"
    #: It is built at first use, once per torch.
    start_seconds: ClassVar[float] = 600.0
    #: The host computes, and notes every access to memory.
    slowness: ClassVar[float] = 4.0
    refuses: ClassVar[Mapping[str, str]] = {"'Sparseasim' backend": "asim: no sparse tensors"}

    def load(self) -> None:
        from distparity_async import register

        register()

    def describe(self) -> str:
        checks = "" if os.environ.get("ASIM_CHECK", "1") != "0" else ", no checker"
        return f"{super().describe()}{checks}"

    def findings(self) -> Sequence[str]:
        from distparity_async import begin, races

        # A rank has one device: without its number, ranks that see the same say the same.
        found = [re.sub(r" of device \d+", "", race) for race in races()]
        # Chance begins anew with each case, so that one that is run again alone is the same.
        begin()
        return found

    def keep_busy(self, device: Any, seconds: float) -> None:
        """Nothing: the mode says how late a stream is, and its work takes the host's time."""

    def replay(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith("ASIM_")}

    def backend(self) -> str:
        return "asimccl"

    def backend_version(self) -> str:
        from importlib.metadata import version

        return f"distparity-async {version('distparity-async')}"

    def sharing(self) -> Sequence[Sharing]:
        # Its memory is the process's own, so that nothing is in anybody's way.
        return [Sharing("asimccl", "asimccl")]
