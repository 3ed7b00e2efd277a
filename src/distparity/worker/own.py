"""Import the modules in which a project declares its scenarios and strategies."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from types import ModuleType

from distparity.core.own_cases import Module, OwnScenario

__all__ = ["CannotImport", "load", "name"]


class CannotImport(Exception):
    """A module of the project cannot be imported in the ranks."""


def load(module: Module) -> ModuleType:
    """Import a module by its name, or from its file if another module has that name.

    Raises :class:`CannotImport`.
    """
    try:
        known = sys.modules.get(module.name)
        if known is not None and _file(known) == module.file:
            return known
        if _found(module.name) == module.file:
            return importlib.import_module(module.name)
        spec = importlib.util.spec_from_file_location(module.name, module.file)
        assert spec is not None and spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        sys.modules[module.name] = found
        spec.loader.exec_module(found)
    except Exception as error:
        raise CannotImport(
            f"ranks cannot import {module.file}: {type(error).__name__}: {error}"
        ) from error
    return found


def _found(name: str) -> str | None:
    """The file that an import by this name would load."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else os.path.abspath(spec.origin)  # noqa: PTH100


def _file(module: ModuleType) -> str | None:
    file = module.__file__
    return None if file is None else os.path.abspath(file)  # noqa: PTH100  of a string


def name(own: OwnScenario) -> None:
    """Give a scenario the name and the checkpoint that its cases have."""
    kind = functools.reduce(getattr, own.qualname.split("."), load(own.module))
    kind.name = own.name  # type: ignore[attr-defined]
    kind.checkpoint = own.checkpoint or kind.checkpoint  # type: ignore[attr-defined]
