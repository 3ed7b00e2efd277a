"""Find cases that became slower than in a reference cell. This is a fact, and never a verdict.

A case's time is that in its ranks. An operation over sizes has its bandwidth in place of it: its time
depends on how many sizes there are. Two cells are compared only in alike conditions, because another
machine or another selection has other times.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from distparity.core.statuses import PASSED
from distparity.report.model import Column, Report, Result

__all__ = ["slower"]

#: The facts that two cells must share; another torch is what they are compared for.
ALIKE = ("device_name", "device_count", "platform", "python", "selection", "arithmetic")


def slower(report: Report, ratio: float, against: str | None = None) -> list[str]:
    """One line for each comparison, and below it one for each case that takes ``ratio`` times as long.

    ``against`` names the reference cell; without it, it is the oldest cell of the same device. Raises
    ``ValueError`` if there is no such cell.
    """
    named = {column.name: column for column in report.columns}
    if against is not None and against not in named:
        raise ValueError(f"there is no cell {against!r}; there are: {', '.join(named)}")
    oldest: dict[str, Column] = {}
    for column in report.columns:
        oldest.setdefault(column.device, column)
    return [
        line
        for column in report.columns
        if (reference := named[against] if against else oldest[column.device]) is not column
        for line in _compared(column, reference, ratio)
    ]


def _compared(column: Column, reference: Column, ratio: float) -> Iterator[str]:
    pair = f"{column.name} against {reference.name}"
    unlike = [name for name in ALIKE if column.facts.get(name) != reference.facts.get(name)]
    if unlike or column.host != reference.host:
        yield f"{pair}: not compared: {', '.join(unlike) or 'host'} differs"
        return
    took = {
        case: one
        for case, result in column.results.items()
        if case in reference.results
        and result.status == reference.results[case].status == PASSED.name
        and (one := _times(result, reference.results[case])) is not None
    }
    if not took:
        yield f"{pair}: not compared: no case passed in both"
        return
    ratios = {case: times for case, (times, _) in took.items()}
    above = sorted((case for case in ratios if ratios[case] >= ratio), key=lambda c: -ratios[c])
    middle = median(ratios.values())
    yield f"{pair}: {len(above)} of {len(took)} cases slower by {ratio:g} (median {middle:.2f})"
    for case in above:
        yield f"  {case.id}: {ratios[case]:.2f} times ({took[case][1]})"


def _times(now: Result, then: Result) -> tuple[float, str] | None:
    """How many times as long it takes, and both in words; None if that is not known of both."""
    # A bandwidth is that of the largest size.
    if now.more.get("largest") != then.more.get("largest"):
        return None
    if now.bandwidth and then.bandwidth:
        speeds = (then.bandwidth / 1e9, now.bandwidth / 1e9)
        return then.bandwidth / now.bandwidth, "{:.3g} GB/s, now {:.3g} GB/s".format(*speeds)
    if now.seconds > 0 and then.seconds > 0:
        return now.seconds / then.seconds, f"{then.seconds:.3f} s, now {now.seconds:.3f} s"
    return None
