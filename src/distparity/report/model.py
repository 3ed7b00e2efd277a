"""The model of a report: all cells side by side. The page, the summary and the JSON are views of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from packaging.version import InvalidVersion, Version

from distparity.core.cause import cause
from distparity.core.marks import Mark
from distparity.core.statuses import BY_NAME, STATUSES
from distparity.results.pairs import Matrix

__all__ = ["CaseRow", "Column", "Conflict", "Report", "Result", "shorten"]

#: The only facts in which two runs of the same cell may differ.
OF_THE_RUN = ("command", "declared", "deselected", "ended", "ranks_busy", "world_sizes")
#: The order of known devices; others follow by name.
DEVICES = ("cpu", "cuda", "xpu", "hpu", "npu", "mps")
_LAST = Version("999999")


class Conflict(Exception):
    """Two files contradict each other about a cell."""


@dataclass(frozen=True)
class CaseRow:
    """A case in every cell. ``scenario`` and ``name`` identify it; the other fields are parts of the name."""

    scenario: str
    name: str
    strategy: str = field(compare=False, default="")
    world_size: int | None = field(compare=False, default=None)
    dtype: str = field(compare=False, default="")
    #: The family of its scenario; empty if the file does not say.
    family: str = field(compare=False, default="")

    @property
    def id(self) -> str:
        return f"{self.scenario}/{self.name}"


@dataclass(frozen=True)
class Result:
    """A file's result for a case. ``ratio`` is error over allowed error; None if not judged."""

    status: str
    message: str = ""
    detail: str = ""
    #: The diagnosis, if there is one.
    diagnosis: str = ""
    ratio: float | None = None
    error: float | None = None
    seconds: float = 0.0
    rerun: str = ""
    #: The kind of failure (:data:`distparity.core.outcome.FAILURES`), and the checks that diverged.
    failure: str = ""
    diverged: tuple[str, ...] = ()
    #: What the failure is known by when it comes again.
    marks: tuple[Mark, ...] = ()
    #: The files of the case's scenario and strategy, relative to distparity's package; "" if unknown.
    sources: tuple[str, str] = ("", "")
    more: dict[str, str] = field(default_factory=dict)

    @property
    def bandwidth(self) -> float | None:
        """Bytes per second on the busiest link at the largest size, of an operation over sizes."""
        try:
            return float(self.more["bandwidth"])
        except (KeyError, ValueError):
            return None

    @property
    def cause(self) -> str:
        """Why the case has this outcome, in words that cases of one cause share."""
        return cause(self.status, self.message, {**self.more, "diagnosis": self.diagnosis})


@dataclass
class Column:
    """A column: one torch on one device, with the facts of its run and a result for every case."""

    name: str
    torch: str
    device: str
    facts: dict[str, str]
    started: str = ""
    host: str = ""
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)
    results: dict[CaseRow, Result] = field(default_factory=dict)
    #: The identities of the runs that it was merged from.
    runs: set[tuple[object, ...]] = field(default_factory=set)

    @property
    def title(self) -> str:
        return f"torch {self.torch} on {self.device}"

    @property
    def version(self) -> Version:
        """torch's public version, for sorting; after all releases if it is unknown."""
        for text in (self.facts.get("torch", ""), self.torch):
            try:
                return Version(Version(text.rpartition("==")[2]).public)
            except InvalidVersion:
                continue
        return _LAST

    @property
    def counts(self) -> dict[str, int]:
        """The number of cases per status, the worst first, without zeros."""
        found = Counter(result.status for result in self.results.values())
        return {one.name: found[one.name] for one in STATUSES if found[one.name]}

    @property
    def worst(self) -> tuple[CaseRow, float] | None:
        """The case with the largest ratio; expected failures do not count.

        Neither do operations that passed, beside trainings: some sum always reaches their bound.
        """
        judged = [
            (case, one)
            for case, one in self.results.items()
            if one.ratio is not None and BY_NAME[one.status].family != "known"
        ]
        said = [
            pair for pair in judged if "checks" not in pair[1].more or pair[1].status != "passed"
        ]
        pairs = [(case, one.ratio) for case, one in said or judged if one.ratio is not None]
        return max(pairs, key=lambda pair: pair[1], default=None)

    @property
    def pairs(self) -> Matrix:
        """Node against node, if the run was one with ``--each-pair``."""
        results = self.results.values()
        return Matrix.of((one.more, BY_NAME[one.status].family == "bad") for one in results)

    def merge(self, other: Column) -> None:
        """Merge another run of this cell; raises :class:`Conflict` if the two disagree.

        Merging the same run again, from another folder, changes nothing.
        """
        self.runs = self.runs or {self._run}
        names = {*self.facts, *other.facts} - set(OF_THE_RUN)
        for name in sorted(names):
            mine, theirs = self.facts.get(name, "nothing"), other.facts.get(name, "nothing")
            if mine != theirs:
                raise Conflict(f"{name} is {mine!r} in one, {theirs!r} in the other")
        for case, result in other.results.items():
            if self.results.setdefault(case, result) != result:
                raise Conflict(f"two different results for the case {case.id!r}")
        self.files += other.files
        if other._run in self.runs:
            return
        self.runs.add(other._run)
        for name in OF_THE_RUN:
            self.facts[name] = _both(self.facts.get(name, ""), other.facts.get(name, ""), " | ")
        self.host = _both(self.host, other.host, ", ")
        self.seconds += other.seconds

    @property
    def _run(self) -> tuple[object, ...]:
        """The identity of a column's run, which no other run has."""
        own = (self.facts.get(name) for name in OF_THE_RUN)
        return self.started, self.host, self.seconds, frozenset(self.results), *own


def _both(one: str, other: str, between: str) -> str:
    """Both texts, or only the first if the second adds nothing."""
    if other in ("", one, *one.split(between)):
        return one
    return f"{one}{between}{other}" if one else other


@dataclass
class Report:
    """All cells, ordered by torch version, and all cases that any cell has."""

    columns: list[Column]
    cases: list[CaseRow]

    @classmethod
    def of(cls, columns: Iterable[Column]) -> Report:
        """Put cells side by side; two with one name are merged, or raise :class:`Conflict`."""
        cells: dict[str, Column] = {}
        for column in columns:
            if column.name in cells:
                first = cells[column.name]
                try:
                    first.merge(column)
                except Conflict as error:
                    one, other = ", ".join(first.files), ", ".join(column.files)
                    raise Conflict(
                        f"{one} and {other} both claim the cell {column.name!r}: {error} "
                        "(--cell gives a run's cell another name)"
                    ) from None
            else:
                cells[column.name] = column
        return cls(_in_order(list(cells.values())), _rows(cells.values()))

    @property
    def counts(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for column in self.columns:
            total.update(column.counts)
        return {one.name: total[one.name] for one in STATUSES if total[one.name]}


def _in_order(columns: list[Column]) -> list[Column]:
    """The order of columns: by torch version, then by device."""
    newest: dict[str, Version] = {}
    for column in columns:
        newest[column.torch] = max(newest.get(column.torch, column.version), column.version)

    def key(column: Column) -> tuple[object, ...]:
        known = column.device in DEVICES
        rank = DEVICES.index(column.device) if known else len(DEVICES)
        return newest[column.torch], column.torch, rank, column.device, column.name

    return sorted(columns, key=key)


def _rows(columns: Iterable[Column]) -> list[CaseRow]:
    """Sort rows: scenarios by family and name, strategies by name, then world size, then dtype."""
    cases: dict[CaseRow, CaseRow] = {}
    for case in (case for column in columns for case in column.results):
        # Prefer a case that has its family.
        if case not in cases or not cases[case].family:
            cases[case] = case
    dtypes = {dtype: place for place, dtype in enumerate({case.dtype: None for case in cases})}

    def key(case: CaseRow) -> tuple[object, ...]:
        place = case.strategy, case.world_size or 0, dtypes[case.dtype], case.name
        return case.family, case.scenario, *place

    return sorted(cases.values(), key=key)


def shorten(text: str, limit: int) -> str:
    """``text``, or its beginning and end with a line between them that says how much is omitted."""
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    gap = f"[… {len(text) - head - tail:,} characters omitted; the XML file has them …]"
    around = "\n" if "\n" in text else " "
    return f"{text[:head]}{around}{gap}{around}{text[-tail:]}"
