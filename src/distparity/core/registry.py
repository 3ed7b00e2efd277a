"""How scenarios, strategies and operations are found and named: by their classes and modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

__all__ = ["family", "name", "subclasses"]

T = TypeVar("T")


def subclasses(kind: type[T]) -> Iterator[type[T]]:
    """All classes below ``kind``, whoever defined them."""
    for sub in kind.__subclasses__():
        yield sub
        yield from subclasses(sub)


def name(kind: type) -> str:
    """What a class goes by: the name of its module."""
    return kind.__module__.rpartition(".")[2]


def family(kind: type) -> str:
    """The family that a class belongs to: the folder of its module."""
    return kind.__module__.rpartition(".")[0].rpartition(".")[2]
