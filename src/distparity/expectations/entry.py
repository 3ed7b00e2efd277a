"""One entry: its cases, where and how they fail, and how it changes an outcome."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase
from functools import cached_property

from packaging.specifiers import SpecifierSet

from distparity.core.case import Case
from distparity.core.naming import UPSTREAM
from distparity.core.outcome import Outcome, Status
from distparity.expectations.patterns import among, any_of, meet
from distparity.expectations.pins import Pin
from distparity.expectations.search import TooSlow, search

__all__ = ["PARTS", "CaseSet", "Entry"]

#: The parts of a case that patterns can match.
PARTS = ("scenario", "strategy", "world_size", "dtype")


class CaseSet:
    """All cases that entries can match, indexed so that many entries find theirs quickly.

    There are thirty thousand of them, and entries name few: the ids are made as they are asked for.
    """

    def __init__(self, cases: Iterable[Case]) -> None:
        #: By scenario, by strategy.
        self.groups: dict[str, dict[str, list[Case]]] = {}
        sizes, dtypes = set(), set()
        for case in cases:
            self.groups.setdefault(case.scenario, {}).setdefault(case.strategy, []).append(case)
            sizes.add(case.world_size)
            dtypes.add(case.dtype)
        #: The values of each part of a case, as strings.
        self.values: dict[str, set[str]] = {
            "scenario": {*self.groups},
            "strategy": {name for groups in self.groups.values() for name in groups},
            "world_size": {*map(str, sizes)},
            "dtype": dtypes,
        }
        self._ids: dict[str, dict[str, Case]] = {}

    def of(self, case: str) -> Case | None:
        """The case with an id; None if there is none."""
        scenario = case.partition("/")[0]
        if scenario not in self._ids:
            every = self.groups.get(scenario, {}).values()
            self._ids[scenario] = {one.id: one for group in every for one in group}
        return self._ids[scenario].get(case)


@dataclass(frozen=True)
class Entry:
    """An expectation about some cases. ``where`` has its file and line, for messages."""

    where: str
    #: The kinds of failure, any of which is expected.
    failures: tuple[str, ...]
    reason: str
    link: str
    torch: SpecifierSet
    #: Patterns for the device's name: ``*`` and ``?``; a pattern after ``!`` excludes.
    device: tuple[str, ...]
    #: Ids of cases; empty if ``patterns`` name the cases.
    cases: tuple[str, ...] = ()
    #: Patterns by part of a case (scenario, strategy, world_size, dtype); a missing part matches all.
    patterns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Patterns, or PEP 440 ranges, for facts of the cell.
    facts: dict[str, str] = field(default_factory=dict)
    #: Regular expressions for the diagnosis, the quantity, and the error.
    looks: dict[str, re.Pattern[str]] = field(default_factory=dict)
    #: Patterns for an operation's checks: all that match diverge, at least one per pattern, and no others.
    checks: tuple[str, ...] = ()
    #: Why nobody can say how wrong its cases are: their numbers are another's memory, or a race.
    undefined: str = ""
    #: How wrong the one case is that it is asked about; None where nobody has recorded it.
    pin: Pin | None = None
    not_run: bool = False
    #: The failure does not show in every run, so a pass is accepted too.
    sometimes: bool = False
    expires: date | None = None
    programs: tuple[str, ...] = ()
    #: The entries that were joined into this one, each for some checks of a case.
    parts: tuple[Entry, ...] = ()

    @property
    def failure(self) -> str:
        """The kinds of failure, as one text."""
        return " or ".join(self.failures)

    @property
    def world_sizes(self) -> set[int]:
        """The world sizes that the entry names."""
        named = {int(size) for size in self.patterns.get("world_size", ())}
        ids = (re.search(r"-ws(\d+)-[^-]+$", case) for case in self.cases)
        return named | {int(found[1]) for found in ids if found}

    @cached_property
    def upstream(self) -> bool:
        """Whether it names torch's own tests, which ``distparity upstream`` runs, and no cases of ours."""
        named = (*self.cases, *self.patterns.get("scenario", ()))
        return any(name.startswith(UPSTREAM) for name in named)

    def joined(self, other: Entry) -> Entry | None:
        """Join two entries that name different checks of one case; None if they do not."""
        if not (self.checks and other.checks and self.failures == other.failures):
            return None
        if any(meet(one, two) for one in self.checks for two in other.checks):
            return None
        return replace(
            self,
            where=f"{self.where} and {other.where}",
            reason=f"{self.reason}; {other.reason}",
            link=f"{self.link} {other.link}",
            torch=self.torch & other.torch,
            facts={**self.facts, **other.facts},
            looks={},
            checks=(*self.checks, *other.checks),
            sometimes=self.sometimes and other.sometimes,
            undefined="; ".join(filter(None, [self.undefined, other.undefined])),
            expires=min(filter(None, (self.expires, other.expires)), default=None),
            programs=(),
            parts=(*(self.parts or (self,)), *(other.parts or (other,))),
        )

    def covered(self, every: CaseSet) -> list[Case]:
        """The cases that the entry matches, on a device that it matches."""
        if self.cases:
            return [case for case in map(every.of, self.cases) if case is not None]
        meant = {
            part: {value for value in values if among(value, self.patterns[part])}
            if part in self.patterns
            else values
            for part, values in every.values.items()
        }
        return [
            case
            for scenario, groups in every.groups.items()
            if scenario in meant["scenario"]
            for strategy, cases in groups.items()
            if strategy in meant["strategy"]
            for case in cases
            if str(case.world_size) in meant["world_size"] and case.dtype in meant["dtype"]
        ]

    def idle(self, every: CaseSet, covered: list[Case]) -> list[str]:
        """The entry's ids and patterns that match no case, each in words; ``covered`` are its cases.

        If each matches some case but no case matches them all, the one line says that.
        """
        found = [repr(case) for case in self.cases if every.of(case) is None]
        for part, patterns in self.patterns.items():
            found += [
                f"{part} {pattern!r}"
                for pattern in patterns
                if not any_of(every.values[part], pattern.removeprefix("!"))
            ]
        if not found and not covered:
            return ["all its patterns together"]
        return found

    def judge(self, outcome: Outcome) -> Outcome:
        """Turn the outcome of one of its cases into expected failure, unexpectedly fixed, or failed.

        Outcomes that say nothing about the case (not supported, an error of the harness) do not change.
        """
        facts = {**outcome.facts, "expectation": self.where, "link": self.link}
        if outcome.status is Status.PASSED and self.sometimes:
            return replace(outcome, facts=facts)
        if outcome.status is Status.PASSED:
            due = [one for one in self.parts or (self,) if not one.sometimes]
            where = " and ".join(one.where for one in due)
            reason = "; ".join(one.reason for one in due)
            message = f"fixed: remove this entry: {where} ({reason})"
            return Outcome(Status.FIXED, message, outcome.message, facts)
        if not outcome.failure:
            return outcome
        try:
            described = self._describes(outcome)
        except TooSlow as error:
            message = f"{outcome.message}; not compared with {self.where}, whose pattern {error}"
            return replace(outcome, message=message, facts=facts)
        if described:
            message = f"{outcome.failure}: {self.reason} ({self.link}; {self.where})"
            facts["reason"] = self.reason
            detail = "\n".join(filter(None, [outcome.message, outcome.detail]))
            status = Status.EXPECTED
            return replace(outcome, status=status, message=message, detail=detail, facts=facts)
        message = f"{outcome.message}; {self.where} expects something else: {self.described}"
        return replace(outcome, message=message, facts=facts)

    def spared(self) -> Outcome:
        """The outcome of a case that the entry says not to run."""
        message = f"{self.failure}: {self.reason} ({self.link}; {self.where})"
        facts = {"expectation": self.where, "link": self.link, "reason": self.reason}
        return Outcome(Status.NOT_RUN, message, facts=facts)

    @property
    def described(self) -> str:
        """The expected failure, in one line."""
        looks = [f"{name} {pattern.pattern!r}" for name, pattern in self.looks.items()]
        looks += [f"check {name!r}" for name in self.checks]
        looks += ["in the same places by the same amount as before"] if self.pin else []
        return ", ".join([self.failure, *looks])

    def _describes(self, outcome: Outcome) -> bool:
        """Whether exactly the expected checks diverged, and the failure looks as expected."""
        names = list(outcome.diverged) or [""]
        parts = self.parts or (self,)
        return (
            self._fits(outcome)
            and (self.pin is None or self.pin.describes(outcome))
            and all(any(_knows(part, name) for part in parts) for name in names)
            and all(_shows(part, names) for part in parts)
            # The diagnosis and the quantity belong to the first divergence.
            and all(_looks(part, outcome) for part in parts if _knows(part, names[0]))
        )

    def _fits(self, outcome: Outcome) -> bool:
        """Whether it is the expected kind of failure.

        Where the device reported something beside wrong numbers, only an entry fits that is about both.
        """
        if outcome.failure == "wrong numbers" and outcome.findings:
            return "findings" in self.failures and "quantity" in self.looks
        return outcome.failure in self.failures


def _knows(entry: Entry, check: str) -> bool:
    """Whether a check is one of the entry's; if it names none, all are."""
    return not entry.checks or any(fnmatchcase(check, one) for one in entry.checks)


def _shows(entry: Entry, diverged: list[str]) -> bool:
    """Whether all checks of the entry diverged; with ``sometimes``, none need to."""
    if entry.sometimes and not any(_knows(entry, name) for name in diverged):
        return True
    return all(any(fnmatchcase(name, one) for name in diverged) for one in entry.checks)


def _looks(entry: Entry, outcome: Outcome) -> bool:
    first = outcome.first
    diagnosis = str(outcome.facts.get("diagnosis", ""))
    texts = {
        "diagnosis": [diagnosis],
        "quantity": ["" if first is None else f"{first.quantity}, rank {first.rank}"],
        "error": [f"{outcome.message}\n{outcome.detail}"],
    }
    if "findings" in entry.failures:
        texts["diagnosis"] = list(outcome.findings) or [diagnosis]
        if first is None:
            # The numbers are right.
            texts["quantity"] = []
    return all(
        search(pattern, text) for name, pattern in entry.looks.items() for text in texts[name]
    )
