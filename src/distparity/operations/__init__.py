"""The operations that training is made of, each compared with plain arithmetic.

An *operation* is a collective or an operation of DTensor. Its case is checked without training. The
files are in ``collectives/`` and ``dtensor/`` here, and a file's name is the operation's name. Instead
of a strategy, a case has the *way* in which the operation is called. Only rank processes import this.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from distparity.core.registry import family, file, name, subclasses
from distparity.core.torch_facts import OperationFacts
from distparity.operations import faults
from distparity.operations.base import Check, Exact, Operation, Site

__all__ = ["Check", "Exact", "Operation", "Site", "facts", "load", "visible"]


@cache
def load() -> dict[str, Operation]:
    """All operations by name, in the order of their names."""
    for info in pkgutil.walk_packages([str(Path(__file__).parent)], f"{__name__}."):
        importlib.import_module(info.name)
    # A class with subclasses is a base class, not an operation.
    found = [kind for kind in subclasses(Operation) if not kind.__subclasses__()]
    return {name(kind): kind() for kind in sorted(found, key=name)}


def facts() -> dict[str, OperationFacts]:
    """The declarations of each operation, by its name."""
    return {
        key: OperationFacts(
            file=file(type(operation)),
            family=family(type(operation)),
            dtypes=tuple(operation.dtypes),
            pairs_only=tuple(operation.pairs_only),
            default_ranks=operation.default_ranks,
            worlds=operation.worlds,
            selection=operation.selection,
            generated=operation.generated,
            patience=operation.patience,
            alone=operation.alone,
            ways={way: tuple(operation.dtypes_of(way)) for way in operation.ways},
        )
        for key, operation in load().items()
    }


def visible() -> dict[str, tuple[str, ...]]:
    """The faults that apply to an operation, by ``operation/way``."""
    known = faults.load()
    return {
        f"{key}/{way}": tuple(one for one, fault in known.items() if fault.may(operation, way))
        for key, operation in load().items()
        for way in operation.ways
    }
