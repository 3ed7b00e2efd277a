"""Write the report's files. All inputs are read and rendered before the first file is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from distparity.report import data, history, html, markdown
from distparity.report.model import Conflict, Report
from distparity.report.read import Refused, files, read

__all__ = ["PAGE", "write"]

PAGE = "index.html"
SUMMARY = "summary.md"
DATA = "report.json"


def write(
    sources: Iterable[Path], folder: Path, kept: Path | None = None
) -> tuple[Report, list[Path]]:
    """Write the page, the summary and the JSON file; returns what was read, and the paths.

    ``kept`` is the file with earlier runs of the cells; these runs are added to it.
    Raises :class:`~distparity.report.read.Refused` before anything is written, and ``OSError`` if
    ``folder`` cannot be written.
    """
    try:
        report = Report.of(column for path in files(list(sources)) for column in read(path))
    except Conflict as error:
        raise Refused(str(error)) from None
    runs = history.joined([] if kept is None else history.read(kept), report)
    texts = {
        folder / PAGE: html.render(report, runs),
        folder / SUMMARY: markdown.render(report),
        folder / DATA: data.render(report),
    }
    if kept is not None:
        texts[kept] = history.render(runs)
    return report, _write(texts)


def _write(texts: dict[Path, str]) -> list[Path]:
    partial = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in texts}
    try:
        for path, part in partial.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(texts[path], encoding="utf-8", newline="\n")
        for path, part in partial.items():
            part.replace(path)
    finally:
        for part in partial.values():
            part.unlink(missing_ok=True)
    return list(partial)
