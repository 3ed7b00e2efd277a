"""The names of cells, which are also in the names of their files, and of torch's own tests."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["COLLECTION", "UPSTREAM", "cell_name", "device_of"]

#: What the scenario of a test of torch's own repository begins with.
UPSTREAM = "upstream."
#: Stands for the tests of a file that cannot be collected, or that has none for the device.
COLLECTION = "collection"


def cell_name(device: str, *, shared: bool, arithmetic: str, marks: Sequence[str] = ()) -> str:
    """A column's name, after torch's: the device, and in what it is another cell than that.

    ``marks`` are a backend and axes: ``xpu+ccl+card=BMG``. The name is part of a file's name, so other
    characters than letters, digits and ``. _ = +`` are replaced.
    """
    # A backend by device, ``cpu:gloo,xpu:ccl``, is ``cpu=gloo+xpu=ccl``.
    plain = [
        re.sub(r"[^\w.=+]", "_", mark.replace(":", "=").replace(",", "+"), flags=re.ASCII)
        for mark in marks
    ]
    parts = ["+".join([device, *plain]), *["shared"] * shared]
    return "-".join([*parts, *[arithmetic] * (arithmetic != "exact")])


def device_of(cell: str) -> str:
    """The device in the name that :func:`cell_name` made."""
    return cell.partition("+")[0].removesuffix("-default").removesuffix("-shared")
