"""The collective backend of this run: the device's own, or another that the user names."""

from __future__ import annotations

from distparity.core import device_kinds
from distparity.devices.base import Device
from distparity.devices.guard import PluginError

__all__ = ["choose", "of"]

#: One for a run, as in :mod:`distparity.devices.arithmetic`.
_chosen: str | None = None


def choose(name: str | None) -> None:
    """Set what :func:`of` returns in this process and in those that are forked from it."""
    global _chosen  # noqa: PLW0603
    _chosen = name


def of(kind: Device) -> str:
    """The backend for ``init_process_group``.

    If the user named a backend that torch does not know yet, the object that a package has under that
    name in the entry-point group ``distparity.backends`` is called to register it. Raises
    :class:`PluginError` if that fails.
    """
    if _chosen is None:
        return kind.backend()
    from torch.distributed import Backend

    names = {part.rpartition(":")[2] for part in _chosen.split(",")}
    for point in device_kinds.backends():
        if point.name in names - set(Backend.backend_list):
            try:
                point.load()()
            except Exception as error:
                told = f"cannot be registered: {type(error).__name__}: {error}"
                raise PluginError(f"{point.name} ({point.value})", told) from error
    return _chosen
