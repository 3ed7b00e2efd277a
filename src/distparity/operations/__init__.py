"""What training is made of: collectives, and the operations of DTensor, each held against plain
arithmetic.

An *operation* is a case of another kind than a training scenario. Its files lie beside the
scenarios' (``scenarios/collectives/``, ``scenarios/dtensor/``), its name is its file's, and in place
of a strategy a case has the *way* in which the operation is called. Imported in rank processes only.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from distparity import scenarios
from distparity.operations import faults
from distparity.operations.base import Check, Exact, Operation, Site

__all__ = ["Check", "Exact", "Operation", "Site", "facts", "load", "visible"]


@cache
def load() -> dict[str, Operation]:
    """All operations by name, in the order of their names."""
    # Importing the scenarios imports what lies beside them.
    scenarios.load()
    # What others are made from has subclasses, and is none itself.
    found = [kind for kind in _subclasses(Operation) if not kind.__subclasses__()]
    return {scenarios.name(kind): kind() for kind in sorted(found, key=scenarios.name)}


def _subclasses(kind: type[Operation]) -> Iterator[type[Operation]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def facts() -> dict[str, dict[str, Any]]:
    """What :func:`distparity.tasks.facts` says of each operation, as it does of a scenario."""
    return {
        name: {
            "file": str(importlib.import_module(type(operation).__module__).__file__),
            "family": scenarios.family(type(operation)),
            "dtypes": list(operation.dtypes),
            "pairs_only": list(operation.pairs_only),
            "default_ranks": operation.default_ranks,
            "ways": {way: list(operation.dtypes_of(way)) for way in operation.ways},
        }
        for name, operation in load().items()
    }


def visible() -> dict[str, list[str]]:
    """The faults that concern an operation, by ``operation/way``."""
    return {
        f"{name}/{way}": [key for key, fault in faults.load().items() if fault.may(operation, way)]
        for name, operation in load().items()
        for way in operation.ways
    }
