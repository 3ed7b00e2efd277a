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

from distparity.core.registry import name, subclasses
from distparity.scenarios.base import Batch, Scenario

__all__ = ["Batch", "Scenario", "load", "sources"]


@cache
def load() -> dict[str, Scenario]:
    """All scenarios by name, in the order of their names."""
    for info in pkgutil.walk_packages([str(Path(__file__).parent)], f"{__name__}."):
        importlib.import_module(info.name)
    # Subclasses in other modules (``--include``) are scenarios too.
    return {name(kind): kind() for kind in sorted(subclasses(Scenario), key=name)}


def is_anchor(kind: type[Scenario]) -> bool:
    """Whether every strategy runs it by default; scenarios from ``--include`` always do."""
    return is_foreign(kind) or bool(vars(kind).get("anchor", False))


def is_foreign(kind: type[Scenario]) -> bool:
    """Whether another package or a test file defines it."""
    return not kind.__module__.startswith(f"{__name__}.")


def sources() -> dict[str, str]:
    """The file that defines each scenario."""
    modules = {key: type(value).__module__ for key, value in load().items()}
    return {key: str(importlib.import_module(module).__file__) for key, module in modules.items()}
