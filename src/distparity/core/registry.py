"""Find and name scenarios, strategies and operations, by their classes and modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

__all__ = ["family", "name", "subclasses"]

T = TypeVar("T")


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
