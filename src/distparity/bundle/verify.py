"""Verify a bundle that somebody sent: every file is there and unchanged, and there is no other file.

Nothing is unpacked, and never more is read than a bundle may have, whatever the archive claims.
"""

from __future__ import annotations

import hashlib
import json
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distparity.bundle import layout
from distparity.bundle.cell import read
from distparity.bundle.layout import Refused

__all__ = ["Checked", "verify"]

_ENCRYPTED = 0x1
_BLOCK = 1 << 20
#: Bytes of a file's header, of its directory entry, and of the archive's end record, without names and
#: comments.
_HEAD, _ENTRY, _END = 30, 46, 22
_LOOSE = "it has changed since it was packed: it has bytes that belong to none of its files"


@dataclass
class Checked:
    """The result: the manifest, and one line for each error."""

    manifest: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    sha256: str
    size: int


def verify(path: Path) -> Checked:
    """Check every checksum of a bundle, and that it has the expectation files of its runs.

    Raises :class:`Refused` if it is not a bundle: not an archive, a name that leads out of the folder or
    does not belong in a bundle, too much data, no manifest, or a report that is not a cell's XML.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(path, archive)
            return _check(path, archive)
    except (zipfile.BadZipFile, UnicodeError, NotImplementedError, ValueError) as error:
        raise Refused(f"{path}: it is not a zip archive, or it is damaged: {error}") from None
    except OSError as error:
        raise Refused(f"{path}: {error.strerror or error}") from None


def _check_names(path: Path, archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    if len(members) > layout.MOST_FILES:
        raise Refused(f"{path}: {len(members)} files; a bundle has at most {layout.MOST_FILES}")
    if sum(member.file_size for member in members) > layout.LARGEST:
        raise Refused(f"{path}: it unpacks to more than {layout.LARGEST // 2**20} MiB")
    names = set()
    for member in members:
        # The name as the archive has it: zipfile truncates names and converts slashes.
        name = member.orig_filename
        if name in names:
            raise Refused(f"{path}: it has {name!r} twice")
        names.add(name)
        if not layout.known(name):
            raise Refused(f"{path}: a bundle cannot contain a file named {name!r}")
        if member.file_size > layout.LARGEST_FILE:
            raise Refused(f"{path}: {name} is larger than {layout.LARGEST_FILE // 2**20} MiB")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or member.flag_bits & _ENCRYPTED:
            raise Refused(f"{path}: {name} is not a plain file")


def _check(path: Path, archive: zipfile.ZipFile) -> Checked:
    manifest = _manifest(path, archive)
    files: dict[str, dict[str, Any]] = manifest["files"]
    found: dict[str, _Found | str] = {name: _read(archive, name) for name in archive.namelist()}
    checked = Checked(manifest, _loose(path, archive))
    for name, said in files.items():
        checked.complaints += _compare(name, said, found.get(name))
    own = {layout.MANIFEST, layout.SUMS}
    checked.complaints += [f"{name}: additional" for name in found if name not in {*files, *own}]
    checked.complaints += _check_sums(archive, files, found)
    if not checked.complaints:
        checked.complaints += _not_held(archive, files)
    return checked


def _not_held(archive: zipfile.ZipFile, files: dict[str, Any]) -> list[str]:
    """The expectation files of a run that are missing or have changed since."""
    held = {said["sha256"] for name, said in files.items() if name.startswith("expectations/")}
    cells = [read(name, archive.read(name)) for name in files if name.startswith("reports/")]
    return [
        f"{cell.name} ran with {name!r}, which is missing or has changed since"
        for cell in cells
        for name, wanted in (cell.expectations or {}).items()
        if wanted not in held
    ]


def _loose(path: Path, archive: zipfile.ZipFile) -> list[str]:
    """Check that the archive has only its files, their directory and the end record."""
    members = archive.infolist()
    at = 0
    with path.open("rb") as file:
        for member in sorted(members, key=lambda member: member.header_offset):
            file.seek(member.header_offset + _HEAD - 4)
            lengths = file.read(4)
            if member.header_offset != at or len(lengths) < 4:
                return [_LOOSE]
            at += _HEAD + sum(struct.unpack("<HH", lengths)) + member.compress_size
    directory = sum(
        _ENTRY + len(member.orig_filename.encode()) + len(member.extra) + len(member.comment)
        for member in members
    )
    whole = at == archive.start_dir and at + directory + _END == path.stat().st_size
    return [] if whole else [_LOOSE]


def _manifest(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    try:
        manifest = json.loads(archive.read(layout.MANIFEST))
        if manifest["format"] != layout.FORMAT:
            raise Refused(
                f"{path}: it has format {manifest['format']!r}; this version reads {layout.FORMAT}"
            )
        for name, said in manifest["files"].items():
            if not layout.known(name) or not isinstance(said["sha256"], str):
                raise Refused(f"{path}: its manifest names {name!r}")
            if type(said["size"]) is not int:
                raise Refused(f"{path}: its manifest has no valid size for {name!r}")
        for cell in manifest["cells"]:
            if not cell["cell"].isprintable():
                raise Refused(f"{path}: its manifest names the cell {cell['cell']!r}")
    except KeyError as error:
        raise Refused(f"{path}: its {layout.MANIFEST} is missing, or lacks {error}") from None
    except (ValueError, TypeError, AttributeError, RecursionError, zlib.error, zipfile.BadZipFile):
        raise Refused(f"{path}: its {layout.MANIFEST} cannot be read") from None
    assert isinstance(manifest, dict)
    return manifest


def _read(archive: zipfile.ZipFile, name: str) -> _Found | str:
    """A file's checksum and size, or why it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with archive.open(name) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        return str(error)
    return _Found(digest.hexdigest(), size)


def _compare(name: str, said: dict[str, Any], found: _Found | str | None) -> list[str]:
    if found is None:
        return [f"{name}: missing"]
    if isinstance(found, str):
        return [f"{name}: damaged: {found}"]
    if (found.sha256, found.size) != (said["sha256"], said["size"]):
        return [f"{name}: damaged: its checksum differs from the manifest's"]
    return []


def _check_sums(
    archive: zipfile.ZipFile, files: dict[str, Any], found: dict[str, _Found | str]
) -> list[str]:
    """Check SHA256SUMS, which has the manifest's checksum and must agree with it on all others."""
    own = found.get(layout.SUMS)
    manifest = found[layout.MANIFEST]
    if not isinstance(own, _Found) or not isinstance(manifest, _Found):
        return _compare(layout.SUMS, {}, own if isinstance(own, str) else None)
    sums = {name: said["sha256"] for name, said in files.items()}
    sums[layout.MANIFEST] = manifest.sha256
    expected = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    if archive.read(layout.SUMS) == expected.encode():
        return []
    return [f"{layout.SUMS}: damaged, or {layout.MANIFEST} is: they disagree"]
