"""The summary: Markdown for a CI job's page, failures first, never larger than the size limit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from distparity.core.cause import grouped
from distparity.core.statuses import BY_NAME, PASSED, STATUSES
from distparity.report.model import CaseRow, Column, Report, Result, shorten

__all__ = ["LIMIT", "render"]

#: Bytes. GitHub accepts job summaries of up to 1 MiB, and other steps of the job may add to ours.
LIMIT = 900_000
#: Bytes that are reserved for the parts after the list of failures.
RESERVE = 250_000
LARGEST_MESSAGE = 400
LARGEST_DETAIL = 4_000
#: The number of failures that are shown in full; the page shows all of them.
ACCOUNTS = 20
#: The number of cases named in one line, for cases that failed in the same way.
NAMES = 8
# In Markdown, an underscore inside a word has no special meaning.
_SPECIAL = re.compile(r"[&<>|`*\[\]\\~@#$\r\n]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def render(report: Report) -> str:
    """The summary as text of at most :data:`LIMIT` bytes."""
    parts = [*_head(report), *_pairs(report), *_failures(report)]
    for part in (*_matrix(report), *_facts(report)):
        if _size([*parts, part]) > LIMIT - 200:
            parts.append("\nThe rest did not fit; the HTML report has it.\n")
            break
        parts.append(part)
    return "".join(parts)


def _size(parts: Iterable[str]) -> int:
    return sum(len(part.encode()) for part in parts)


def escape(text: str) -> str:
    """``text`` on one line, with everything escaped that is special in Markdown or HTML."""
    return _SPECIAL.sub(lambda found: " " if found[0] in "\r\n" else f"&#{ord(found[0])};", text)


def _head(report: Report) -> Iterator[str]:
    counts = report.counts
    bad = sum(number for name, number in counts.items() if BY_NAME[name].family == "bad")
    total = sum(counts.values())
    cells = f"{len(report.columns)} cell{'s' * (len(report.columns) != 1)}"
    cases = f"{total} case{'s' * (total != 1)}"
    if bad:
        yield f"# distparity: {bad} of {cases} failed, in {cells}\n\n"
    elif counts.get(PASSED.name):
        yield f"# distparity: no failures in {cases} of {cells}\n\n"
    else:
        yield f"# distparity: none of {cases} in {cells} passed\n\n"
    shown = [name for name in counts if name != PASSED.name] + [PASSED.name]
    yield f"| cell | rate | {' | '.join(map(_marked, shown))} | worst ratio |\n"
    yield "|---|" + "--:|" * (len(shown) + 2) + "\n"
    for column in report.columns:
        own = column.counts
        row = [str(own.get(name, "")) for name in shown]
        yield f"| {escape(column.title)} | {_rate(own)} | {' | '.join(row)} | {_worst(column)} |\n"


def _rate(counts: Mapping[str, int]) -> str:
    """The share of the cases that were judged in which parity holds; never 100 % if one is not right."""
    good, judged = (
        sum(number for name, number in counts.items() if BY_NAME[name].family in families)
        for families in (("good",), ("good", "known", "bad"))
    )
    return f"{math.floor(1000 * good / judged) / 10:g} %" if judged else "none judged"


def _marked(name: str) -> str:
    return f"{BY_NAME[name].mark} {name}"


def _worst(column: Column) -> str:
    if column.worst is None:
        return "none judged"
    case, ratio = column.worst
    return f"{_short(ratio)} ({escape(case.id)})"


def _pairs(report: Report) -> Iterator[str]:
    """Node against node, of runs with ``--each-pair``."""
    for column in report.columns:
        for number, (head, *rows) in enumerate(column.pairs.tables):
            if not number:
                yield f"\n## Each pair of nodes: {escape(column.title)}\n\n"
                yield "Cases that were wrong, of those that ran.\n"
            yield f"\n| {' | '.join(map(escape, head))} |\n|---|{'--:|' * len(rows)}\n"
            for row in rows:
                yield f"| {' | '.join(map(escape, row))} |\n"
        if column.pairs.conclusion:
            yield f"\n**{escape(column.pairs.conclusion)}**\n"


def _failures(report: Report) -> Iterator[str]:
    """Every bad result in a table, by its cause, the most frequent first; then some in full."""
    found = [
        (column, case, result)
        for status in STATUSES
        if status.family == "bad"
        for case in report.cases
        for column in report.columns
        if (result := column.results.get(case)) is not None and result.status == status.name
    ]
    if not found:
        return
    yield "\n## What is wrong\n\n| | why | cases | cells | worst ratio |\n|---|---|---|---|--:|\n"
    room = LIMIT - RESERVE - 40 * ACCOUNTS * 200
    told = 0
    groups = grouped((one[2].status, one[2].cause, one) for one in found)
    for status, why, group in groups:
        line = _failure(status, why, group)
        room -= len(line.encode())
        if room < 0:
            yield f"\n{len(found) - told} more did not fit; the HTML report has them.\n"
            break
        told += len(group)
        yield line
    yield from _accounts([group[0] for _, _, group in groups])


_Found = tuple[Column, CaseRow, Result]


def _failure(status: str, why: str, group: Sequence[_Found]) -> str:
    ratios = [one.ratio for _, _, one in group if one.ratio is not None]
    ratio = _short(max(ratios)) if ratios else ""
    names = list(dict.fromkeys(case.id for _, case, _ in group))
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    cases = f"{escape(', '.join(names[:NAMES]))}{more}"
    cells = escape(", ".join(dict.fromkeys(column.title for column, _, _ in group)))
    first = escape(shorten(group[0][2].message, LARGEST_MESSAGE))
    said = escape(why) + (f"; the first: {first}" if first not in ("", escape(why)) else "")
    return f"| {_marked(status)} | {said} | {cases} | {cells} | {ratio} |\n"


def _accounts(found: list[_Found]) -> Iterator[str]:
    with_detail = [one for one in found if one[2].detail or one[2].rerun]
    for column, case, result in with_detail[:ACCOUNTS]:
        title = f"{BY_NAME[result.status].mark} {escape(case.id)}, {escape(column.title)}"
        yield f"\n<details><summary>{title}</summary>\n\n"
        yield _block(shorten(result.detail or result.message, LARGEST_DETAIL))
        if result.rerun:
            yield f"With torch {escape(column.facts.get('torch', column.torch))}:\n\n"
            yield _block(result.rerun)
        yield "</details>\n"
    if len(with_detail) > ACCOUNTS:
        yield f"\nThe HTML report has the details of {len(with_detail) - ACCOUNTS} more.\n"


def _block(text: str) -> str:
    """A fenced block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}\n\n"


def _matrix(report: Report) -> Iterator[str]:
    yield "\n## Scenarios\n\nPassed / all, and the other outcomes.\n\n"
    rows: dict[tuple[str, str], list[CaseRow]] = {}
    for case in report.cases:
        if case.family:
            rows.setdefault((case.family, ""), []).append(case)
        rows.setdefault((case.family, case.scenario), []).append(case)
    # As many columns as a reader can follow; a wider matrix becomes several tables.
    for first in range(0, len(report.columns), 12):
        columns = report.columns[first : first + 12]
        yield f"| scenario | {' | '.join(escape(c.title) for c in columns)} |\n"
        yield "|---|" + "--:|" * len(columns) + "\n"
        for (family, scenario), cases in rows.items():
            name = escape(scenario) if scenario else f"**{escape(family)}**"
            yield f"| {name} | {' | '.join(_tally(column, cases) for column in columns)} |\n"
        yield "\n"


def _tally(column: Column, cases: list[CaseRow]) -> str:
    results = [column.results[case].status for case in cases if case in column.results]
    if not results:
        return "·"
    marks = [
        f"{one.mark}{results.count(one.name)}"
        for one in STATUSES
        if one is not PASSED and one.name in results
    ]
    return " ".join([f"{results.count(PASSED.name)}/{len(results)}", *marks])


def _facts(report: Report) -> Iterator[str]:
    shown = ", ".join(f"{one.mark} {one.name}" for one in STATUSES)
    yield f"Marks: {shown}; · no such case in this cell.\n\n## Runs\n\n"
    for column in report.columns:
        facts = [f"{name} {value}" for name, value in column.facts.items() if name != "cell"]
        when = f"started {column.started} on {column.host}, {column.seconds:.0f} s"
        yield f"- **{escape(column.title)}**: {escape('; '.join([when, *facts]))}\n"


def _short(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.3g}"
