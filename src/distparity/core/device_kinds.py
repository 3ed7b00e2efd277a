"""The names of the kinds of device, without importing any of them."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

__all__ = ["ANY", "GROUP", "SHIPPED", "kinds", "points"]

#: The entry-point group for devices of other packages.
GROUP = "distparity.devices"
#: The kinds of this package, in the order of reports: the reference first.
SHIPPED = ("cpu", "cuda", "xpu", "hpu", "npu")
#: It comes last, because it may be any of the others under another name.
ANY = "accelerator"


def points() -> list[EntryPoint]:
    """The entry points of devices of other packages, whether they can be loaded or not."""
    return list(entry_points(group=GROUP))


def kinds(*more: str) -> list[str]:
    """The names of all known kinds of device, installed or not, and of ``more``."""
    others = sorted({*more, *(point.name for point in points())})
    return [*SHIPPED, *(name for name in others if name not in (*SHIPPED, ANY)), ANY]
