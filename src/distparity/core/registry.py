"""Find and name scenarios, strategies and operations, by their classes and modules."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["Clash", "family", "file", "name", "subclasses", "unique"]

T = TypeVar("T")


class Clash(Exception):
    """Two classes have one name, so that one of them would be lost."""


def unique(named: Iterable[tuple[str, type[T]]]) -> dict[str, type[T]]:
    """Classes by name; raises :class:`Clash` if two have the same.

    A class and one derived from it in the same module may: the derived one has the name.
    """
    found: dict[str, type[T]] = {}
    for key, kind in named:
        other = found.setdefault(key, kind)
        if other.__module__ == kind.__module__ and issubclass(kind, other):
            found[key] = kind
        elif not (other.__module__ == kind.__module__ and issubclass(other, kind)):
            both = " and ".join(f"{one.__module__}.{one.__qualname__}" for one in (other, kind))
            raise Clash(f"{both} have the same name {key!r}: give one of them another `name`")
    return found


def subclasses(kind: type[T]) -> Iterator[type[T]]:
    """All subclasses of ``kind``, direct and indirect, from any package."""
    for sub in kind.__subclasses__():
        yield sub
        yield from subclasses(sub)


def name(kind: type) -> str:
    """The name of a class's scenario or operation: its own ``name``, or that of its module."""
    return vars(kind).get("name") or kind.__module__.rpartition(".")[2]


def family(kind: type) -> str:
    """The family of a class: the folder of its module."""
    return kind.__module__.rpartition(".")[0].rpartition(".")[2]


def file(kind: type) -> str:
    """The file that defines a class."""
    return str(sys.modules[kind.__module__].__file__)
