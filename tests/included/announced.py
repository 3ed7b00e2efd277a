"""A vendor's package as torch's entry points ``torch.backends`` name it."""

from __future__ import annotations

import os
from types import SimpleNamespace

#: As vendors' packages do, at import.
SWITCH = os.environ.get("ANNOUNCED_SWITCH", "nothing")


def start() -> None:
    import torch

    torch.announced = SimpleNamespace(switch=SWITCH)  # type: ignore[attr-defined]  # that is how


def broken() -> None:
    raise OSError("libannounced.so.1: cannot open shared object file")
