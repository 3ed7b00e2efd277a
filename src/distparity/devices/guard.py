"""A guard around a device plug-in, so that errors name the plug-in and the method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distparity.core import refusal
from distparity.devices.base import Device, Sharing

__all__ = ["Guard", "PluginError"]


class PluginError(Exception):
    """A device plug-in failed; the message names it and the method."""

    def __init__(self, plugin: str, what: str) -> None:
        super().__init__(f"the device plug-in {plugin} {what}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _is_count(value: Any) -> bool:
    return isinstance(value, int)


def _maps_text(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, [*value, *value.values()]))


def _are_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_text, value))


def _maps_patterns(value: Any) -> bool:
    return _maps_text(value) and all(map(_is_pattern, value))


def _is_pattern(text: str) -> bool:
    try:
        refusal.pattern(text)
    except ValueError:
        return False
    return True


def _are_ways(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and all(isinstance(way, Sharing) for way in value)
        and all(_maps_patterns(way.refuses) for way in value)
    )


def _are_lines(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


def _are_groups(value: Any) -> bool:
    lists = isinstance(value, Sequence) and all(isinstance(one, Sequence) for one in value)
    indices = [index for group in value for index in group] if lists else [None]
    return all(map(_is_count, indices)) and len(set(indices)) == len(indices)


def _or_none(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


#: The types of methods' results and of declarations; those of ``take`` and ``module`` are torch's.
_RIGHT: dict[str, tuple[Callable[[Any], bool], str]] = {
    "environment": (_maps_text, "a dict of str to str"),
    "absent": (_or_none(_is_text), "str or None"),
    "installed": (_is_text, "str"),
    "count": (_is_count, "int"),
    "groups": (_are_groups, "lists of indices, each index once"),
    "most_ranks": (_or_none(_is_count), "int or None"),
    "describe": (_is_text, "str"),
    "backend": (_is_text, "str"),
    "backend_version": (_is_text, "str"),
    "sharing": (_are_ways, "a list of Sharing, with patterns that do not match everything"),
    "lacks": (_maps_text, "a dict of str to str"),
    "peak_memory": (_or_none(_is_count), "int or None"),
    "free_memory": (_or_none(_is_count), "int or None"),
    "findings": (_are_lines, "a list of str"),
    "replay": (_maps_text, "a dict of str to str"),
    "no_reductions": (_maps_text, "a dict of str to str"),
    "refuses": (
        _maps_patterns,
        "a dict of regular expressions that do not match everything, to str",
    ),
    "sums_apart": (_or_none(_is_text), "str or None"),
    "start_seconds": (_is_number, "a number"),
    "slowness": (_is_number, "a number"),
    "computes_on": (_or_none(_is_text), "str or None"),
    "packages": (_are_texts, "a tuple of str"),
}


class Guard:
    """A device whose methods raise :class:`PluginError` if they fail or return a wrong type."""

    def __init__(self, device: Device, plugin: str) -> None:
        self._device = device
        self._plugin = plugin

    def __getattr__(self, name: str) -> Any:
        try:
            value = getattr(self._device, name)
        except AttributeError:
            raise
        except Exception as error:
            raise PluginError(self._plugin, f"fails in {name}: {_told(error)}") from error
        if callable(value):
            return self._guarded(name, value)
        self._check(name, value, name)
        return value

    def _guarded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                answer = method(*arguments)
            except Exception as error:
                raise PluginError(self._plugin, f"fails in {name}(): {_told(error)}") from error
            self._check(name, answer, f"{name}()")
            return answer

        return call

    def _check(self, name: str, answer: Any, where: str) -> None:
        is_right, words = _RIGHT.get(name, (None, ""))
        if is_right is not None and not is_right(answer):
            raise PluginError(self._plugin, f"answers {answer!r} in {where}, expected {words}")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
