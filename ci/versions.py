"""Write docs/versions.md, the results of every torch release, from the XML of its cells.

    nox -s tests-2.4 tests-2.13          # then
    nox -s versions -- reports           # the XML files, or folders of them

Nothing on the page is typed: counts, reasons and links are those of the XML.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from distparity.core.statuses import BY_NAME, PASSED, STATUSES
from distparity.expectations import SHIPPED, load
from distparity.report.markdown import escape
from distparity.report.model import Column, Conflict, Report, Result
from distparity.report.read import Refused, files, read

PAGE = Path(__file__).parents[1] / "docs" / "versions.md"
HEAD = """\
# Results by torch release

`nox -s versions -- reports` writes this page from the XML of the runs below; nothing is typed by hand. The
seconds of a run also depend on what else its machine did; [performance.md](performance.md) has
measurements.
"""
#: What torch's answer begins with in a message, behind the fact that it was asked.
_ANSWER = re.compile(r": torch \S+ says .*", re.DOTALL)
#: Columns for the largest ratio of a pass, and whether it is that of operations: what they are
#: allowed is a bound, and some sum of two numbers always reaches it.
LARGEST = {"largest ratio, training": False, "largest ratio, operations": True}
#: A row's title, and in how many cases of each cell it is so.
Rows = dict[str, Counter[str]]


def page(report: Report) -> str:
    return "\n".join(
        [HEAD, *_runs(report.columns), *_wrong(report), *_sections(report.columns), *_undefined()]
    )


# -- the runs --------------------------------------------------------------------------------------


def _runs(columns: Sequence[Column]) -> Iterator[str]:
    shown = [one.name for one in STATUSES if any(one.name in c.counts for c in columns)]
    shown.sort(key=lambda name: BY_NAME[name] is not PASSED)
    yield from _header("torch", ["cases", *shown, *LARGEST, "seconds", "on"])
    for column in columns:
        counts = [str(column.counts.get(name, 0)) for name in shown]
        size = str(len(column.results))
        largest = [_largest(column, operations) for operations in LARGEST.values()]
        row = [_torch(column), size, *counts, *largest, f"{column.seconds:.0f}"]
        yield _row([*row, column.started[:10]])
    yield ""
    for name in ("selection", "world_sizes", "device_name", "backend", "python", "platform"):
        values = {column.facts.get(name, "unknown"): None for column in columns}
        yield f"- {name.replace('_', ' ')}: {escape('; '.join(values))}"


def _torch(column: Column) -> str:
    return escape(f"{column.facts.get('torch', column.torch)} ({column.device})")


def _largest(column: Column, operations: bool) -> str:
    ratios = {
        case.id: one.ratio
        for case, one in column.results.items()
        if one.status == PASSED.name and one.ratio is not None
        if ("checks" in one.more) is operations
    }
    if not ratios:
        return "nothing passed"
    worst = max(ratios, key=lambda case: ratios[case])
    return f"{ratios[worst]:.3f} ({escape(worst)})"


def _wrong(report: Report) -> Iterator[str]:
    """Every result that is nobody's yet, one line each."""
    found = [
        (column, case, result)
        for column in report.columns
        for case, result in column.results.items()
        if BY_NAME[result.status].family == "bad"
    ]
    if not found:
        return
    yield from ["", "## What is wrong", ""]
    yield from _header("case", ["torch", "", "ratio", "message"])
    for column, case, one in found:
        ratio = "" if one.ratio is None else f"{one.ratio:.3g}"
        yield _row([escape(case.id), _torch(column), one.status, ratio, escape(one.message)])


# -- what stands for many cases --------------------------------------------------------------------


def _sections(columns: Sequence[Column]) -> Iterator[str]:
    for status, title, name in (
        ("expected failure", "Known bugs of torch that fail as expected", _defect),
        ("not run", "Known bugs of torch that are not run", _defect),
        ("not supported", "What is not supported", _fact),
    ):
        rows = _count(columns, status, name)
        if rows:
            yield from ["", f"## {title}", ""]
            yield from _header("cases", [_torch(column) for column in columns])
            for row, counts in rows.items():
                yield _row([row, *(str(counts[column.name] or "") for column in columns)])


def _undefined() -> Iterator[str]:
    """What the known bugs leave to chance: such a case may fail in any way that its entry describes."""
    entries = [entry for entry in load([SHIPPED]).entries if entry.undefined]
    yield from ["", "## What torch leaves undefined", ""]
    yield "How wrong these cases are is chance, so nothing can tell another fault in them from the known one."
    yield ""
    yield from _header("cases", ["torch", "what is undefined", "why"])
    for entry in entries:
        named = entry.cases or [
            f"{part} {', '.join(values)}" for part, values in entry.patterns.items()
        ]
        why = f"{escape(entry.reason)} ({entry.link})"
        yield _row([escape("; ".join(named)), str(entry.torch), escape(entry.undefined), why])


def _count(columns: Iterable[Column], status: str, name: Callable[[Result], list[str]]) -> Rows:
    rows: Rows = {}
    for column in columns:
        for result in column.results.values():
            for row in name(result) if result.status == status else []:
                rows.setdefault(row, Counter())[column.name] += 1
    return dict(sorted(rows.items()))


def _defect(result: Result) -> list[str]:
    """The defects that a case shows: a case of several checks may show more than one."""
    reason, link = result.more.get("reason", result.message), result.more.get("link", "")
    reasons, links = reason.split("; "), link.split()
    if len(reasons) != len(links):
        reasons, links = [reason], [link]
    return [f"{escape(why)} ({where})" for why, where in zip(reasons, links, strict=True)]


def _fact(result: Result) -> list[str]:
    """What was asked or is declared, without what this torch said to it in its own words."""
    return [escape(_ANSWER.sub("", result.message))]


# -- Markdown --------------------------------------------------------------------------------------


def _header(first: str, rest: Sequence[str]) -> list[str]:
    return [_row([first, *rest]), "|---" * (len(rest) + 1) + "|"]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("sources", nargs="+", type=Path, help="XML files, or folders of them")
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    given = parser.parse_args()
    try:
        report = Report.of(column for path in files(given.sources) for column in read(path))
    except (Conflict, Refused) as error:
        print(error, file=sys.stderr)
        return 1
    given.output.write_text(page(report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
