"""Find cells that show nothing: they are absent, or nothing in them was judged.

A report has only the cells that exist, so an absent cell would go unnoticed, and a cell in which every
case was skipped has no failure. So the user must say which cells there should be. A cell that never
started, or that has no result, shows nothing either. A cell of several nodes that lost one has cases that
it declared and could not run any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from distparity.core.statuses import BY_NAME, counted
from distparity.report.model import Column, Report

__all__ = ["not_shown"]

#: The bad outcomes that say nothing about parity.
_NO_JUDGEMENT = ("error", "missing")
#: The fact of a case that could not run any more.
_LOST = "lost_nodes"


def not_shown(report: Report, cells: Iterable[str]) -> list[str]:
    """One line for every cell of ``cells`` that is absent, and for every cell that shows nothing."""
    here = {column.name for column in report.columns}
    absent = [f"{name}: absent: no file has this cell" for name in cells if name not in here]
    return absent + [line for column in report.columns for line in _about(column)]


def _about(column: Column) -> Iterator[str]:
    silent = [
        name for name in column.counts if BY_NAME[name].family == "silent" or name in _NO_JUDGEMENT
    ]
    if not column.results:
        yield f"{column.name}: nothing ran: it has no case"
    elif len(silent) == len(column.counts):
        counts = counted({name: column.counts[name] for name in silent})
        yield f"{column.name}: nothing ran: {counts}"
    # Skipped, and yet declared while it could run.
    lost = [result.more[_LOST] for result in column.results.values() if _LOST in result.more]
    if lost:
        nodes = ", ".join(dict.fromkeys(" ".join(lost).split()))
        yield f"{column.name}: {len(lost)} of {len(column.results)} cases did not run: {nodes} was lost"
