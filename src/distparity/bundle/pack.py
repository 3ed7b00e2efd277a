"""Make a bundle. The same reports in the same environment make the same bytes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distparity.bundle import layout
from distparity.bundle.cell import Cell, read
from distparity.bundle.layout import Refused
from distparity.core import device_kinds
from distparity.core.redact import Redactor
from distparity.core.version import __version__
from distparity.expectations.file import SHIPPED, Wrong, files_of

__all__ = ["pack"]

#: The date of every member: the time of packing is not a fact of the run.
_DATE = (1980, 1, 1, 0, 0, 0)


def pack(
    sources: Sequence[Path],
    target: Path,
    expectations: Sequence[Path] = (),
    variables: Sequence[str] = (),
) -> list[str]:
    """Write a bundle of the cells in ``sources`` to ``target``; returns the names in it.

    It includes the expectation files of all runs: ``expectations`` are those that distparity does
    not ship. Of the environment it includes only variables named DISTPARITY_... and those in
    ``variables``. Raises :class:`Refused` before anything is written, and ``OSError`` if ``target``
    cannot be written.
    """
    redactor = Redactor(os.environ)
    reports = _reports(sources)
    files = {name: _read(path, redactor) for name, path in reports.items()}
    cells = [read(str(p), files[name]) for name, p in reports.items() if p.suffix == ".xml"]
    files |= _expectations(cells, expectations, redactor)
    files[layout.ENVIRONMENT] = _json(redactor.all(_environment(variables)))
    files[layout.COMMANDS] = "".join(f"{c.name}: {c.command}\n" for c in cells).encode()
    files[layout.MANIFEST] = _json(_manifest(cells, files))
    files[layout.SUMS] = "".join(f"{_sum(files[n])}  {n}\n" for n in sorted(files)).encode()
    _check(files)
    _write(target, files)
    return sorted(files)


def _reports(sources: Sequence[Path]) -> dict[str, Path]:
    """The XML and side files, by their names in the bundle."""
    found: dict[str, Path] = {}
    for source in sources:
        if not source.exists():
            raise Refused(f"{source}: no such file or folder")
        for path in sorted(source.glob("**/junit-*")) if source.is_dir() else [source]:
            name = {".xml": f"reports/{path.name}", ".jsonl": f"logs/{path.name}"}.get(path.suffix)
            if name is None:
                continue
            if name in found:
                raise Refused(
                    f"{path}: {found[name]} has the same name, and names in a bundle are unique"
                )
            found[name] = path
    if not any(path.suffix == ".xml" for path in found.values()):
        raise Refused(f"{', '.join(map(str, sources))}: no XML of a cell (junit-*.xml)")
    return found


def _read(path: Path, redactor: Redactor) -> bytes:
    """Read a file. Raises :class:`Refused` if it contains a secret of this environment."""
    if path.is_symlink():
        raise Refused(f"{path}: it is a link, and a bundle contains only files")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror or error}") from None
    text = content.decode("utf-8", "replace")
    clean = redactor.text(text)
    if clean != text:
        names = sorted(
            set(re.findall(r"\[\$(\w+)\]", clean)) - set(re.findall(r"\[\$(\w+)\]", text))
        )
        what = f"the value of {', '.join(names)}" if names else "a password in an address"
        raise Refused(f"{path}: it contains {what}")
    return content


def _expectations(cells: list[Cell], given: Sequence[Path], redactor: Redactor) -> dict[str, bytes]:
    """The expectation files of all runs, by their names in the bundle; shipped ones automatically.

    Raises :class:`Refused` if a file that a run used is not given or has changed, and for a file
    that no run used, if all runs say which files they used.
    """
    try:
        found = {path: _read(path, redactor) for one in given for path in files_of(one)}
    except Wrong as error:
        raise Refused(str(error)) from None
    sums = {path: _sum(content) for path, content in found.items()}
    for cell in cells:
        for name, wanted in (cell.expectations or {}).items():
            if wanted in sums.values():
                continue
            content = _shipped(name)
            if content is None or _sum(content) != wanted:
                raise Refused(_lacking(cell, name, sums))
            found[SHIPPED / Path(name).name], sums[SHIPPED / Path(name).name] = content, wanted
    named = {wanted for cell in cells for wanted in (cell.expectations or {}).values()}
    for path, own in sums.items():
        if own not in named and all(cell.expectations is not None for cell in cells):
            raise Refused(f"{path}: none of the packed runs used this file in its present form")
    return {
        f"expectations/{number:02}-{path.name}": content
        for number, (path, content) in enumerate(found.items(), 1)
    }


def _shipped(name: str) -> bytes | None:
    """The content of a shipped file, by the name that a run has for it; None for a user's own file."""
    path = SHIPPED / Path(name).name
    return path.read_bytes() if name == f"{SHIPPED.name}/{path.name}" and path.is_file() else None


def _lacking(cell: Cell, name: str, given: Mapping[Path, str]) -> str:
    changed = next((path for path in given if path.name == Path(name).name), None)
    if changed is not None:
        return f"{changed}: it has changed since {cell.name} ran: its checksum differs"
    if _shipped(name) is not None:
        return (
            f"{name}: {cell.name} ran with this file from another version of distparity; make the "
            "bundle with that version, or give that file with --expectations"
        )
    return f"{name}: {cell.name} ran with this file; add it: --expectations {name}"


def _manifest(cells: list[Cell], files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "format": layout.FORMAT,
        "distparity": __version__,
        "cells": [cell.facts for cell in sorted(cells, key=lambda cell: cell.name)],
        "files": {
            name: {"sha256": _sum(content), "size": len(content)}
            for name, content in sorted(files.items())
        },
    }


def _environment(variables: Sequence[str]) -> dict[str, Any]:
    named = [name for name in os.environ if name.startswith("DISTPARITY_")]
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": _versions(),
        "variables": {name: os.environ.get(name) for name in sorted({*named, *variables})},
    }


def _versions() -> dict[str, str]:
    """The versions of distparity, torch and the devices' packages, and of all their requirements."""
    devices = device_kinds.points()
    wanted = ["distparity", "torch", "numpy", *(e.dist.name for e in devices if e.dist)]
    found: dict[str, str] = {}
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = distribution.version
        wanted += _names(distribution.requires or [])
    return dict(sorted(found.items()))


def _names(requirements: Iterable[str]) -> list[str]:
    plain = [word for word in requirements if "extra ==" not in word]
    return [found[0] for word in plain if (found := re.match(r"[\w.-]+", word))]


def _check(files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if not layout.known(name):
            raise Refused(f"{name}: a bundle cannot contain a file of this name")
        if len(content) > layout.LARGEST_FILE:
            raise Refused(f"{name}: larger than {layout.LARGEST_FILE // 2**20} MiB")
    if len(files) > layout.MOST_FILES or sum(map(len, files.values())) > layout.LARGEST:
        raise Refused(f"more than {layout.MOST_FILES} files, or {layout.LARGEST // 2**20} MiB")


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for name in sorted(files):
                member = zipfile.ZipInfo(name, _DATE)
                member.create_system = 3
                member.external_attr = 0o100644 << 16
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, files[name])
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
