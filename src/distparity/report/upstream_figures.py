"""The tables of torch's own tests, for a page of the documentation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from distparity.core.cause import grouped
from distparity.core.naming import COLLECTION, UPSTREAM, device_of
from distparity.core.statuses import BY_NAME, STATUSES, counted
from distparity.report.model import CaseRow, Column, Result

__all__ = ["is_upstream", "tables"]

#: Where a message has no more for a table: how to run the test again, and where it was.
_REST = re.compile(r" To execute this test, run| Traceback \(most recent call last\)")
#: The most characters of a message.
MOST = 160


def is_upstream(column: Column) -> bool:
    return column.facts.get("selection") == "upstream"


def tables(columns: Sequence[Column]) -> Iterator[str]:
    """What came of each file in each cell, why tests did not pass, and what only a device runs."""
    yield from _files(columns)
    yield ""
    yield from _reasons(columns)
    gained = list(_gained(columns))
    if gained:
        yield from (
            "",
            "| cell | passed, and skipped on the CPU | the reason there |",
            "|---|---|---|",
        )
        yield from map(_row, gained)


def _row(words: Iterable[str]) -> str:
    return f"| {' | '.join(word.replace('|', chr(0x2223)) for word in words)} |"


def _title(column: Column) -> str:
    return f"{column.version} on {device_of(column.device)}"


def _file(case: CaseRow) -> str:
    return f"{case.scenario.removeprefix(UPSTREAM).replace('.', '/')}.py"


def _files(columns: Sequence[Column]) -> Iterator[str]:
    yield _row(["file", *map(_title, columns)])
    yield "|---|" + "---|" * len(columns)
    yield _row(["files of torch", *(c.facts.get("upstream_version", "unknown") for c in columns)])
    for file in sorted({_file(case) for column in columns for case in column.results}):
        found = [
            Counter(one.status for case, one in column.results.items() if _file(case) == file)
            for column in columns
        ]
        yield _row([file, *map(_counts, found)])
    yield _row(["all", *(_counts(Counter(column.counts)) for column in columns)])


def _counts(found: Counter[str]) -> str:
    if not found:
        return "not in this run"
    words = counted({one.name: found[one.name] for one in STATUSES if found[one.name]})
    return f"{found.total()}: {words}"


def _reasons(columns: Sequence[Column]) -> Iterator[str]:
    yield _row(["outcome", "message", *map(_title, columns)])
    yield "|---|---|" + "---|" * len(columns)
    found = [
        (one.status, _message(one), number)
        for number, column in enumerate(columns)
        for one in column.results.values()
        if BY_NAME[one.status].family != "good"
    ]
    order = [status.name for status in STATUSES]
    for status, why, where in sorted(grouped(found), key=lambda one: (order.index(one[0]), one[1])):
        yield _row([status, why, *(str(where.count(n) or "") for n in range(len(columns)))])


def _message(result: Result) -> str:
    words = _REST.split(" ".join(result.message.split()).removeprefix("upstream says: "))[0]
    return words if len(words) <= MOST else f"{words[:MOST]}..."


def _gained(columns: Sequence[Column]) -> Iterator[list[str]]:
    """The tests that pass on a device, and that the CPU's cell of the same torch skips."""
    for column in columns:
        device = device_of(column.device)
        skipped = {
            _plain(case, "cpu"): _message(result)
            for cpu in columns
            if device_of(cpu.device) == "cpu"
            and cpu.facts.get("torch") == column.facts.get("torch")
            for case, result in cpu.results.items()
            if BY_NAME[result.status].family == "silent"
        }
        for case, result in column.results.items():
            # Where the file has no test for the CPU at all, there is one result for it.
            names = (_plain(case, device), f"{case.scenario}/{COLLECTION}")
            why = next((skipped[name] for name in names if name in skipped), None)
            if result.status == "passed" and why is not None:
                yield [_title(column), case.id, why]


def _plain(case: CaseRow, device: str) -> str:
    """A test's id without the device: torch's generic tests have it in the names of class and test."""
    kinds = f"{device}|privateuse1"
    text = re.sub(rf"({kinds.upper()})(?=\.)", "", case.id)
    return re.sub(rf"_({kinds})(?=_|$)", "", text)
