"""The scenarios to train. A new one is one file in its family's folder here, with one subclass of
:class:`Scenario`.

Importing a scenario imports torch, so only rank processes do; the process that runs pytest gets the
list of scenarios from them.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from distparity.core.registry import name, subclasses, unique
from distparity.drawing.grammar import is_drawn
from distparity.scenarios.base import Batch, Scenario

__all__ = ["Batch", "Scenario", "check", "get", "load"]

#: It makes a scenario from a name, and has none of its own.
_DRAWN = f"{__name__}.drawn"


@cache
def load() -> dict[str, Scenario]:
    """All scenarios by name, in the order of their names."""
    return {name(kind): kind() for kind in sorted(_kinds(), key=name)}


def _kinds() -> list[type[Scenario]]:
    for info in pkgutil.walk_packages([str(Path(__file__).parent)], f"{__name__}."):
        importlib.import_module(info.name)
    # Subclasses in other modules (``--include``) are scenarios too.
    return [kind for kind in subclasses(Scenario) if kind.__module__ != _DRAWN]


def check() -> None:
    """Raise :class:`~distparity.core.registry.Clash` if two scenarios that are known now have one name.

    A project's test file is imported later: what it does not use has no name that counts.
    """
    unique((name(kind), kind) for kind in _kinds())


def get(key: str) -> Scenario:
    """The scenario of a name; a drawn one is made. Raises ``KeyError`` if there is none."""
    if not is_drawn(key):
        return load()[key]
    made: Scenario = importlib.import_module(_DRAWN).build(key)
    return made


def is_anchor(kind: type[Scenario]) -> bool:
    """Whether every strategy runs it by default; scenarios from ``--include`` always do."""
    return is_foreign(kind) or bool(vars(kind).get("anchor", False))


def is_foreign(kind: type[Scenario]) -> bool:
    """Whether another package or a test file defines it."""
    return not kind.__module__.startswith(f"{__name__}.")
