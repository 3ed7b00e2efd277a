"""The releases between two ends: those of the table, nightlies by date, or the user's interpreters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distparity import releases
from distparity.core.bad_request import BadRequest
from distparity.releases import Row, Source
from distparity.releases.interpreters import RUNNING

__all__ = ["Candidate", "Span", "between", "given"]

_DATE = re.compile(r"20\d\d-\d\d-\d\d")


@dataclass(frozen=True)
class Candidate:
    """One torch to try: a requirement to install in an environment, or an interpreter that has it."""

    name: str
    source: Source | None = None
    #: The Python of the environment (``3.12``), or the path of the interpreter that has this torch.
    python: str = ""


@dataclass(frozen=True)
class Span:
    """The candidates from one end to the other, the oldest first."""

    candidates: Sequence[Candidate]
    #: Whether the older end is the good one; if not, bisect looks for the fix.
    forward: bool

    @property
    def good(self) -> Candidate:
        return self.candidates[0 if self.forward else -1]

    @property
    def bad(self) -> Candidate:
        return self.candidates[-1 if self.forward else 0]


def between(
    good: str,
    bad: str,
    devices: Sequence[str] = (),
    wheel: str | None = None,
    index: str | None = None,
) -> Span:
    """All releases from ``good`` to ``bad``, including both.

    The ends are two releases (``2.6`` means its newest patch; ``2.6.0``) or two dates of nightlies
    (``2026-05-01``). A date without a nightly means the next nightly between the ends. Raises
    :class:`BadRequest` and :class:`~distparity.releases.NoSuchCell`.
    """
    dated = [bool(_DATE.fullmatch(name)) for name in (good, bad)]
    if dated[0] != dated[1]:
        raise BadRequest(f"{good} and {bad}: give two releases, or two dates of nightlies")
    if dated[0]:
        rows = _nightlies(good, bad, releases.source(releases.NIGHTLY, devices, wheel, index))
        forward = good < bad
    else:
        rows, forward = _releases(good, bad)
    python = _python(rows)
    candidates = [
        Candidate(
            _name(row), releases.source(row, devices, wheel, index), python or _own_python(row)
        )
        for row in rows
    ]
    return Span(candidates, forward)


def given(words: Sequence[str], good: str, bad: str) -> Span:
    """The user's own interpreters, ``NAME=PYTHON`` each, in the given order, with both ends.

    Raises :class:`BadRequest`.
    """
    found = []
    for word in words:
        name, _, python = word.partition("=")
        if not name or not Path(python).is_file():
            raise BadRequest(
                f"--python {word}: give NAME=/path/of/python, of an interpreter that exists"
            )
        found.append(Candidate(name, python=python))
    names = [candidate.name for candidate in found]
    for name in (good, bad):
        if names.count(name) != 1:
            raise BadRequest(
                f"{name!r} must be given once with --python; given: {', '.join(names)}"
            )
    first, last, forward = _ends(names.index(good), names.index(bad))
    return Span(found[first : last + 1], forward)


def _ends(good: int, bad: int) -> tuple[int, int, bool]:
    if good == bad:
        raise BadRequest(
            "--good and --bad are the same release: there is nothing to find between them"
        )
    return min(good, bad), max(good, bad), good < bad


def _releases(good: str, bad: str) -> tuple[list[Row], bool]:
    rows = releases.patches()
    first, last, forward = _ends(_place(rows, good), _place(rows, bad))
    return rows[first : last + 1], forward


def _place(rows: Sequence[Row], name: str) -> int:
    fits = [n for n, row in enumerate(rows) if name in (row.name, _name(row))]
    if not fits:
        known = ", ".join(map(_name, rows))
        raise BadRequest(f"unknown release {name!r}; known: {known}, and dates of nightlies")
    return fits[-1]


def _nightlies(one: str, other: str, source: Source) -> list[Row]:
    first, last = sorted(name.replace("-", "") for name in (one, other))
    rows = releases.nightlies(source)
    found = [row for row in rows if first <= row.requirement[-8:] <= last]
    if len(found) < 2:
        has = f"{_name(rows[0])} to {_name(rows[-1])}" if rows else "none"
        raise BadRequest(
            f"fewer than two nightlies from {one} to {other}; {source.index} has {has}"
        )
    return found


def _name(row: Row) -> str:
    return row.requirement.partition("==")[2]


def _python(rows: Sequence[Row]) -> str | None:
    """One Python that all rows have wheels for, so that only torch differs."""
    common = [p for p in rows[-1].pythons if all(p in row.pythons for row in rows)]
    return RUNNING if RUNNING in common else (common[-1] if common else None)


def _own_python(row: Row) -> str:
    return RUNNING if RUNNING in row.pythons else row.pythons[-1]
