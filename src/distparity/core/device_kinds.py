"""The names of the kinds of device, asked without importing any of them."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

__all__ = ["ANY", "GROUP", "SHIPPED", "kinds", "points"]

#: The entry-point group in which other packages declare theirs.
GROUP = "distparity.devices"
#: Those that come with this package, in order of preference in reports: the reference first.
SHIPPED = ("cpu", "cuda", "xpu", "hpu", "npu")
#: It may be any of the others under another name, so it comes after them.
ANY = "accelerator"


def points() -> list[EntryPoint]:
    """Where other packages say that a device of theirs is, whether it can be loaded or not."""
    return list(entry_points(group=GROUP))


def kinds(*more: str) -> list[str]:
    """The names of all kinds of device known here, installed or not, and of ``more``."""
    others = sorted({*more, *(point.name for point in points())})
    return [*SHIPPED, *(name for name in others if name not in (*SHIPPED, ANY)), ANY]
