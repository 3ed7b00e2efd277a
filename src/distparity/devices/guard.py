"""What stands between distparity and a device of another package: errors that say whose they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distparity.devices.base import Device

__all__ = ["Guard", "PluginError"]

#: What methods answer with; ``take`` and ``module`` answer with torch's own objects.
_ANSWERS: dict[str, tuple[type, ...]] = {
    "environment": (dict,),
    "absent": (str, type(None)),
    "count": (int,),
    "most_ranks": (int, type(None)),
    "describe": (str,),
    "backend": (str,),
    "backend_version": (str,),
    "sharing": (list, tuple),
    "lacks": (dict,),
    "peak_memory": (int, type(None)),
}


class PluginError(Exception):
    """A device plug-in is at fault; the text names it, and the method."""

    def __init__(self, plugin: str, what: str) -> None:
        super().__init__(f"the device plug-in {plugin} {what}")


class Guard:
    """A device whose methods raise :class:`PluginError`, and answer with what they should."""

    def __init__(self, device: Device, plugin: str) -> None:
        self._device = device
        self._plugin = plugin

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._device, name)
        return self._guarded(name, value) if callable(value) else value

    def _guarded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                answer = method(*arguments)
            except Exception as error:
                what = f"fails in {name}(): {type(error).__name__}: {error}"
                raise PluginError(self._plugin, what) from error
            self._check(name, answer)
            return answer

        return call

    def _check(self, name: str, answer: Any) -> None:
        expected = _ANSWERS.get(name)
        if expected is not None and not isinstance(answer, expected):
            names = " or ".join(kind.__name__.replace("NoneType", "None") for kind in expected)
            raise PluginError(self._plugin, f"answers {answer!r} in {name}(), expected {names}")
