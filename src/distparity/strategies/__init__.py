"""The strategies to distribute training. A new one is a file here with :class:`Strategy` subclasses.

Like a scenario, a strategy is imported in rank processes only.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from distparity.core.known_limit import Limit
from distparity.core.registry import subclasses, unique
from distparity.strategies.base import Pending, Strategy, Tensors

__all__ = ["Limit", "Pending", "Strategy", "Tensors", "load"]


@cache
def load() -> dict[str, Strategy]:
    """All strategies by name, in the order of their names."""
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__name__}.{info.name}")
    found = [kind for kind in subclasses(Strategy) if "name" in vars(kind)]
    kinds = unique((kind.name, kind) for kind in found)
    return {name: kinds[name]() for name in sorted(kinds)}
