"""Write the report's files. All inputs are read and rendered before the first file is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from distparity.report import data, html, markdown
from distparity.report.model import Conflict, Report
from distparity.report.read import Refused, files, read

__all__ = ["PAGE", "write"]

PAGE = "index.html"
SUMMARY = "summary.md"
DATA = "report.json"


def write(sources: Iterable[Path], folder: Path) -> tuple[Report, list[Path]]:
    """Write the page, the summary and the JSON file; returns what was read, and the paths.

    Raises :class:`~distparity.report.read.Refused` before anything is written, and ``OSError`` if
    ``folder`` cannot be written.
    """
    try:
        report = Report.of(column for path in files(list(sources)) for column in read(path))
    except Conflict as error:
        raise Refused(str(error)) from None
    texts = {
        PAGE: html.render(report),
        SUMMARY: markdown.render(report),
        DATA: data.render(report),
    }
    return report, _write(texts, folder)


def _write(texts: dict[str, str], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    partial = {folder / name: folder / f".{name}.{os.getpid()}" for name in texts}
    try:
        for path, part in partial.items():
            part.write_text(texts[path.name], encoding="utf-8", newline="\n")
        for path, part in partial.items():
            part.replace(path)
    finally:
        for part in partial.values():
            part.unlink(missing_ok=True)
    return list(partial)
