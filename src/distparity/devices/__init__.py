"""The kinds of device. A new kind is one file here, or one entry point in another package.

An entry point in the group ``distparity.devices`` names a :class:`Device` subclass or instance;
the entry point's name is the kind. During development, ``--device-plugin module:object`` replaces the
entry point.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any, cast

from distparity.core import device_kinds
from distparity.core.device_kinds import ANY, GROUP, SHIPPED
from distparity.devices.base import Device, Sharing
from distparity.devices.guard import Guard, PluginError

__all__ = ["Device", "PluginError", "Sharing", "get", "kinds", "plug"]

#: The objects of ``--device-plugin``, by kind; they override entry points of the same name.
_plugged: dict[str, Device] = {}


def kinds() -> list[str]:
    """The names of all known kinds of device, installed or not; imports none of them."""
    return device_kinds.kinds(*_plugged)


@cache
def get(kind: str) -> Device:
    """The device object of a kind.

    Raises ``KeyError`` for an unknown kind, and :class:`PluginError` if the object is not a device.
    """
    if kind in _plugged:
        return _plugged[kind]
    if kind in (*SHIPPED, ANY):
        device: Device = importlib.import_module(f"distparity.devices.{kind}").DEVICE
        return device
    found = [point for point in device_kinds.points() if point.name == kind]
    if not found:
        raise KeyError(kind)
    return _made(found[0], kind)


def plug(reference: str) -> str:
    """Register the device at ``module:object``; returns its kind. Raises :class:`PluginError`."""
    device = _made(EntryPoint("", reference, GROUP), None)
    if device.kind == "cpu":
        # The oracle is trained on it, and its cell would have the name of another.
        raise PluginError(reference, "has the kind 'cpu': for a backend of your own, use --backend")
    _plugged[device.kind] = device
    get.cache_clear()
    return device.kind


def _made(point: EntryPoint, kind: str | None) -> Device:
    name = f"{kind} ({point.value})" if kind else point.value
    try:
        device: Any = point.load()
        if isinstance(device, type):
            device = device()
    except Exception as error:
        raise PluginError(name, f"cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(device, Device):
        raise PluginError(name, f"is a {type(device).__name__}, not a distparity.devices.Device")
    own = getattr(device, "kind", None)
    if not isinstance(own, str) or own != (kind or own):
        raise PluginError(name, f"has the kind {own!r}, expected {kind or 'a device type'!r}")
    return cast("Device", Guard(device, name))
