"""The names of the kinds of device, without importing any of them."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points

__all__ = [
    "ANY",
    "AUTOLOAD",
    "GROUP",
    "SHIPPED",
    "announced",
    "autoload_off",
    "backends",
    "kinds",
    "points",
]

#: torch's variable: with any value but 1, torch loads no device of other packages by itself.
AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"

#: The entry-point group for devices of other packages.
GROUP = "distparity.devices"
#: The kinds of this package, in the order of reports: the reference first.
SHIPPED = ("cpu", "cuda", "xpu", "hpu", "npu")
#: It comes last, because it may be any of the others under another name.
ANY = "accelerator"


def points() -> list[EntryPoint]:
    """The entry points of devices of other packages, whether they can be loaded or not."""
    return list(_points(tuple(sys.path)))


@cache
def _points(_path: tuple[str, ...]) -> list[EntryPoint]:
    """Looking into every installed package takes a while, and a run asks seven times."""
    return list(entry_points(group=GROUP))


def backends() -> list[EntryPoint]:
    """The entry points of collective backends of other packages: each registers one with torch."""
    return list(entry_points(group="distparity.backends"))


def announced() -> list[str]:
    """The packages that announce a device to torch, which loads them by itself."""
    return sorted(
        {point.module.partition(".")[0] for point in entry_points(group="torch.backends")}
    )


def autoload_off() -> str:
    """That torch's autoload is off, in one line; empty if it is on."""
    value = os.environ.get(AUTOLOAD, "1")
    packages = ", ".join(announced()) or "none is installed"
    what = f"packages that announce a device to torch are not loaded ({packages})"
    return "" if value == "1" else f"{AUTOLOAD}={value}: {what}"


def kinds(*more: str) -> list[str]:
    """The names of all known kinds of device, installed or not, and of ``more``."""
    others = sorted({*more, *(point.name for point in points())})
    return [*SHIPPED, *(name for name in others if name not in (*SHIPPED, ANY)), ANY]
