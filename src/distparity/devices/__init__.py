"""Kinds of device. A new kind is one file here, or one entry point in another package.

An entry point in the group ``distparity.devices`` names a :class:`Device` subclass or instance;
the entry point's name is the kind.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from distparity.devices.base import Device

__all__ = ["Device", "get", "kinds"]

#: Order of preference in reports: the reference first.
_IN_THE_BOX = ("cpu", "cuda", "xpu", "hpu")


def kinds() -> list[str]:
    """The names of all kinds of device known here, installed or not."""
    others = sorted(point.name for point in entry_points(group="distparity.devices"))
    return [*_IN_THE_BOX, *(name for name in others if name not in _IN_THE_BOX)]


@cache
def get(kind: str) -> Device:
    """The device object of a kind; raises ``KeyError`` for one that is not known."""
    if kind in _IN_THE_BOX:
        device = importlib.import_module(f"distparity.devices.{kind}").DEVICE
    else:
        found = [point for point in entry_points(group="distparity.devices") if point.name == kind]
        if not found:
            raise KeyError(kind)
        device = found[0].load()
    if isinstance(device, type):
        device = device()
    assert isinstance(device, Device)
    return device
