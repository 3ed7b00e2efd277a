"""Frozen records that processes exchange as JSON."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

__all__ = ["Record"]

R = TypeVar("R", bound="Record")


class Record:
    """Base of dataclasses whose fields are strings, numbers, records, and tuples and dicts of those.

    JSON has no tuples, infinities or NaN: a tuple becomes a list, and a number that is not finite
    becomes the string that :class:`float` parses, for example ``"inf"``.
    """

    def to_json(self) -> dict[str, Any]:
        """A dict for :mod:`json`, with one key per field."""
        return {name: _plain(getattr(self, name)) for name in _types(cast("Any", type(self)))}

    @classmethod
    def from_json(cls: type[R], data: Mapping[str, Any]) -> R:  # noqa: PYI019  new in Python 3.11
        """Inverse of :meth:`to_json`.

        Raises ``ValueError``, which names the field, if one is missing, unknown or of another type.
        """
        hints = _types(cast("Any", cls))
        for name in sorted(hints.keys() ^ data.keys()):
            what = "has no field" if name in data else "lacks the field"
            raise ValueError(f"{cls.__name__} {what} {name!r}")
        return cls(**{name: _typed(hint, data[name], name) for name, hint in hints.items()})


@cache
def _types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


@cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(kind), get_args(kind)


def _typed(kind: Any, value: Any, name: str) -> Any:
    """Convert a value from JSON to the type ``kind`` of a field."""
    if kind is Any or type(value) is kind:
        return value
    origin, inner = _parts(kind)
    if origin in (Union, types.UnionType):
        (one,) = (one for one in inner if one is not type(None))
        return None if value is None else _typed(one, value, name)
    if origin is tuple and isinstance(value, (list, tuple)):
        each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(each) == len(value):
            return tuple(_typed(one, part, name) for one, part in zip(each, value, strict=True))
    elif origin is dict and isinstance(value, Mapping):
        return {key: _typed(inner[1], one, name) for key, one in value.items()}
    elif origin is None:
        return _single(kind, value, name)
    raise ValueError(f"{name}: {value!r} is not of type {kind}")


def _single(kind: Any, value: Any, name: str) -> Any:
    if issubclass(kind, Record) and isinstance(value, Mapping):
        return kind.from_json(value)
    if issubclass(kind, Enum):
        return kind(value)
    # In Python a bool is an int; here it is not.
    if kind is not bool and isinstance(value, bool):
        pass
    elif kind is float and isinstance(value, (int, float, str)):
        return float(value)
    elif isinstance(value, kind):
        return value
    raise ValueError(f"{name}: {value!r} is not of type {kind.__name__}")
