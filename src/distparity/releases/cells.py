"""A vendor's cells as data: a TOML file with a table ``[[cell]]`` for each.

It needs only the standard library, because programs without any package read it too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distparity.core.naming import cell_name
from distparity.releases.table import NoSuchCell

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["NamedCell", "read"]


@dataclass(frozen=True)
class NamedCell:
    """One table: where to run, how, and what is expected there."""

    #: By which the cell is chosen from the file.
    name: str
    #: A kind of device.
    device: str
    #: The backend, in place of the device's own.
    backend: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    #: Environment variables of the run.
    environment: Mapping[str, str] = field(default_factory=dict)
    selection: str = "default"
    #: Files of expectations, relative to the TOML file.
    expectations: tuple[str, ...] = ()
    #: The label of the machines that can run it.
    runner: str = ""
    #: More words for ``distparity run``.
    options: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The cell's name in the reports, after torch's."""
        axes = [f"{name}={value}" for name, value in self.axes.items()]
        shared = any(word.startswith("--share-devices") for word in self.options)
        marks = [*[self.backend] * bool(self.backend), *axes]
        return cell_name(self.device, shared=shared, arithmetic="exact", marks=marks)

    def words(self) -> list[str]:
        """The options of ``distparity run`` for it."""
        found = [f"--device={self.device}", f"--select={self.selection}"]
        found += [f"--backend={self.backend}"] * bool(self.backend)
        found += [f"--axis={name}={value}" for name, value in self.axes.items()]
        return [*found, *(f"--expectations={path}" for path in self.expectations), *self.options]


def read(path: Path, only: str | None = None) -> list[NamedCell]:
    """The cells of a file, or the one with the name ``only``; raises :class:`NoSuchCell`."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NoSuchCell(f"{path}: {error}") from None
    found = [_cell(table, path) for table in tables.pop("cell", [])]
    if tables or not found:
        raise NoSuchCell(f"{path}: it has tables [[cell]], and nothing else")
    for what in ("name", "title"):
        names = [getattr(cell, what) for cell in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise NoSuchCell(f"{path}: two cells have the {what} {twice!r}")
    chosen = [cell for cell in found if only in (None, cell.name)]
    if not chosen:
        known = ", ".join(cell.name for cell in found)
        raise NoSuchCell(f"{path}: there is no cell {only!r}; there are: {known}")
    return chosen


#: By key: the type of its value in TOML.
_TYPES: dict[str, type] = {
    "name": str,
    "device": str,
    "backend": str,
    "axes": dict,
    "environment": dict,
    "selection": str,
    "expectations": list,
    "runner": str,
    "options": list,
}


def _cell(table: Mapping[str, Any], path: Path) -> NamedCell:
    for key, value in table.items():
        if key not in _TYPES:
            raise NoSuchCell(f"{path}: unknown key {key!r}; known: {', '.join(_TYPES)}")
        values = [value] if isinstance(value, str) else value
        inner = values.values() if isinstance(values, dict) else values
        if not isinstance(value, _TYPES[key]) or not all(isinstance(one, str) for one in inner):
            raise NoSuchCell(f"{path}: {key} = {value!r}: it takes strings")
    for key in ("name", "device"):
        if not table.get(key):
            raise NoSuchCell(f"{path}: a cell has no {key}")
    files = tuple(str(path.parent / file) for file in table.get("expectations", ()))
    lists = {"expectations": files, "options": tuple(table.get("options", ()))}
    return NamedCell(**{**table, **lists})
