"""The matrix of results that the terminal shows at the end of a session.

Everything here is text. pytest's terminal writer handles colours, including pipes, ``NO_COLOR`` and
``--color``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.core.statuses import STATUSES

__all__ = ["Line", "matrix"]

#: A line in pieces: each has a text and the name of a style of pytest's terminal writer.
Line = list[tuple[str, str]]

_GAP = "  "
#: More scenarios than this do not fit on a screen. Then a row is a family of scenarios, and below it
#: are only those of its scenarios with a bad result.
SCENARIOS = 30
#: With more families of strategies than this, all are one column: generated cases have hundreds.
COLUMNS = 60


def marks(encoding: str | None) -> dict[str, str]:
    """The mark of each outcome, in characters of the encoding."""
    try:
        "".join(one.mark for one in STATUSES).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return {one.name: one.plain for one in STATUSES}
    return {one.name: one.mark for one in STATUSES}


@dataclass
class _Square:
    """The outcomes of the cases in one row and one family of strategies."""

    counts: Counter[Status] = field(default_factory=Counter)

    @property
    def style(self) -> str:
        if any(status.bad for status in self.counts):
            return "red"
        # A case that was not judged, or fails as expected, is not a pass: green means that all passed.
        if not self.counts[Status.PASSED]:
            return "yellow"
        return "green" if set(self.counts) == {Status.PASSED} else ""

    def text(self, marks: Mapping[str, str]) -> str:
        """``7/8`` passed, and the other outcomes; only those if nothing could pass."""
        others = {s: n for s, n in self.counts.items() if s is not Status.PASSED}
        words = [f"{marks[status.value]}{count}" for status, count in others.items()]
        if self.counts[Status.PASSED] or any(status.bad for status in others):
            words.insert(0, f"{self.counts[Status.PASSED]}/{self.counts.total()}")
        return " ".join(words)


def matrix(
    cases: Iterable[Case],
    outcomes: Mapping[str, Outcome],
    width: int = 80,
    encoding: str | None = "utf-8",
    families: Mapping[str, str] | None = None,
) -> list[Line]:
    """Scenarios by families of strategies (``fsdp2`` for ``fsdp2_nested``), within ``width`` columns.

    ``families`` are those of the scenarios, for the rows if there are many scenarios. Strategies that
    do not fit side by side continue in a second table. Empty if there is nothing to compare.
    """
    statuses = {
        case: outcomes[case.id].status if case.id in outcomes else Status.MISSING for case in cases
    }
    many = len({_family(case.strategy) for case in statuses}) > COLUMNS
    squares: dict[tuple[str, str], _Square] = {}
    for row, members in _rows(statuses, families or {}).items():
        for case in members:
            column = "all" if many else _family(case.strategy)
            square = squares.setdefault((row, column), _Square())
            square.counts[statuses[case]] += 1
    if len(squares) < 2:
        return []
    table = _Table(squares, marks(encoding))
    lines: list[Line] = []
    for part in table.parts(width):
        lines += [[]] * bool(lines) + table.lines(part)
    return [*lines, *_legend(squares.values(), table.signs)]


def _rows(statuses: Mapping[Case, Status], families: Mapping[str, str]) -> dict[str, list[Case]]:
    """The names of the rows, in order, and the cases of each."""
    scenarios: dict[str, list[Case]] = {}
    for case in statuses:
        scenarios.setdefault(case.scenario, []).append(case)
    if len(scenarios) <= SCENARIOS or not families:
        return scenarios
    rows: dict[str, list[Case]] = {}
    for family in dict.fromkeys(families.get(scenario, "other") for scenario in scenarios):
        within = {s: own for s, own in scenarios.items() if families.get(s, "other") == family}
        rows[family] = [case for own in within.values() for case in own]
        bad = {s: own for s, own in within.items() if any(statuses[case].bad for case in own)}
        rows |= {f"  {scenario}": own for scenario, own in bad.items()}
    return rows


class _Table:
    """The squares with their texts, and the width of each family's column."""

    def __init__(
        self, squares: Mapping[tuple[str, str], _Square], signs: Mapping[str, str]
    ) -> None:
        self.squares = squares
        self.signs = signs
        self.texts = {place: square.text(signs) for place, square in squares.items()}
        self.rows = list(dict.fromkeys(scenario for scenario, _ in squares))
        self.first = max(map(len, self.rows))
        # In the order of the rows, so that strategies with the same rows are in the same table.
        self.widths = dict.fromkeys((family for _, family in squares), 0)
        for (_, family), text in self.texts.items():
            self.widths[family] = max(self.widths[family], len(family), len(text))

    def parts(self, width: int) -> Iterator[list[str]]:
        """The families in groups that fit; one that is too wide stands alone."""
        part: list[str] = []
        left = width - self.first
        for name, wide in self.widths.items():
            left -= wide + len(_GAP)
            if part and left < 0:
                yield part
                part, left = [], width - self.first - wide - len(_GAP)
            part.append(name)
        yield part

    def lines(self, families: list[str]) -> list[Line]:
        heads = [(_GAP + name.ljust(self.widths[name]), "bold") for name in families]
        found = [[(" " * self.first, ""), *heads]]
        for row in self.rows:
            here = [(row.ljust(self.first), ""), *(self._square(row, name) for name in families)]
            if any(text.strip() for text, _ in here[1:]):
                found.append(here)
        return [_stripped(line) for line in found]

    def _square(self, row: str, family: str) -> tuple[str, str]:
        text = self.texts.get((row, family), "").ljust(self.widths[family])
        square = self.squares.get((row, family))
        return _GAP + text, "" if square is None else square.style


def _stripped(line: Line) -> Line:
    """The line without the spaces at its end."""
    while line and not line[-1][0].strip():
        line = line[:-1]
    return [*line[:-1], (line[-1][0].rstrip(), line[-1][1])] if line else []


def _family(strategy: str) -> str:
    return strategy.partition("_")[0]


def _legend(squares: Iterable[_Square], signs: Mapping[str, str]) -> list[Line]:
    seen = {status for square in squares for status in square.counts}
    words = [f"{signs[s.value]} {s.value}" for s in Status if s in seen and s is not Status.PASSED]
    return [[(", ".join(words), "")]] if words else []
