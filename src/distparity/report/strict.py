"""Which cells show nothing: they are not there, or nothing in them was judged.

A report is made of what is there, so a cell that never came is nowhere in it; and a cell in which
every case was skipped has no failure. Whoever waits for a colour has to say which cells there are.
Nor does a cell show anything that never started, or in which no result came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from distparity.core.statuses import BY_NAME, counted
from distparity.report.model import Column, Report

__all__ = ["not_shown"]

#: Of the outcomes that are bad, those that say nothing of what was to be tested.
_NO_JUDGEMENT = ("error", "missing")


def not_shown(report: Report, cells: Iterable[str]) -> list[str]:
    """A line for every cell of ``cells`` that is absent, and for every one that shows nothing."""
    here = {column.name for column in report.columns}
    absent = [f"{name}: absent: no file has this cell" for name in cells if name not in here]
    return absent + [line for column in report.columns for line in _about(column)]


def _about(column: Column) -> Iterator[str]:
    silent = [
        name for name in column.counts if BY_NAME[name].family == "silent" or name in _NO_JUDGEMENT
    ]
    if not column.results:
        yield f"{column.name}: nothing ran: there is no case"
    elif len(silent) == len(column.counts):
        counts = counted({name: column.counts[name] for name in silent})
        yield f"{column.name}: nothing ran: {counts}"
