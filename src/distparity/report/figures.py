"""A table of the results per device, for a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from distparity.core.statuses import counted
from distparity.report.model import Column, Report
from distparity.report.read import files, read
from distparity.report.upstream_figures import is_upstream, tables

__all__ = ["BEGIN", "END", "into", "table"]

#: The table is between these lines of a page.
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

_HEAD = (
    "| device | torch | collectives | ranks share | selection | cases | outcomes | largest ratio | time | date | distparity |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def table(sources: Iterable[Path]) -> list[str]:
    """Markdown: a row per cell, and tables of torch's own tests.

    Raises :class:`~distparity.report.read.Refused`.
    """
    report = Report.of(column for path in files(list(sources)) for column in read(path))
    own = [column for column in report.columns if not is_upstream(column)]
    theirs = [column for column in report.columns if is_upstream(column)]
    rows = [*_HEAD, *map(_row, own)] if own or not theirs else []
    return [*rows, *[""] * bool(rows and theirs), *(tables(theirs) if theirs else ())]


def into(page: Path, rows: list[str]) -> None:
    """Write the table into a page; raises ``ValueError`` if the page has no place for it."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for figures: {BEGIN} ... {END}")
    text = "\n".join([before + BEGIN, "", *rows, "", END + after])
    page.write_text(text, encoding="utf-8", newline="\n")


def _row(column: Column) -> str:
    facts = column.facts
    name = facts.get("device_name", "unknown")
    words = [
        f"{column.device}: {name}, {facts.get('device_count', '?')} of them",
        facts.get("torch", column.torch),
        f"{facts.get('backend', 'unknown')} ({facts.get('backend_version', 'unknown')})",
        facts.get("shared_devices", "no"),
        f"{facts.get('selection', 'unknown')}, {facts.get('world_sizes', '?')} ranks",
        str(len(column.results)),
        counted(column.counts),
        "none" if column.worst is None else "{1:.3g} ({0.id})".format(*column.worst),
        f"{column.seconds:.0f} s",
        column.started[:10],
        facts.get("version", "unknown"),
    ]
    return f"| {' | '.join(word.replace('|', chr(0x2223)) for word in words)} |"
