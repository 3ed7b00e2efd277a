"""One entry: the cases, where they fail, how, and what it makes of an outcome."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase

from packaging.specifiers import SpecifierSet

from distparity.case import Case
from distparity.outcome import Outcome, Status

__all__ = ["FAILURES", "PARTS", "CaseSet", "Entry", "among", "kind"]

#: The parts of a case that patterns are about.
PARTS = ("scenario", "strategy", "world_size", "dtype")
#: How a case can fail, as an entry spells it.
FAILURES = ("wrong numbers", "raised", "crash", "timeout")


class CaseSet:
    """All the cases that entries can be about, arranged so that many entries find theirs quickly."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self.by_id = {case.id: case for case in cases}
        #: By scenario and strategy.
        self.groups: dict[tuple[str, str], list[Case]] = {}
        #: The values that each part of a case has, as text.
        self.values: dict[str, set[str]] = {part: set() for part in PARTS}
        for case in self.by_id.values():
            self.groups.setdefault((case.scenario, case.strategy), []).append(case)
        for part, values in self.values.items():
            values.update(str(getattr(case, part)) for case in self.by_id.values())


@dataclass(frozen=True)
class Entry:
    """What is known about some cases. ``where`` names its file and line, for whoever reads of it."""

    where: str
    failure: str
    reason: str
    link: str
    torch: SpecifierSet
    #: Patterns of the device's name: ``*`` and ``?``, and with ``!`` before it what is left out.
    device: tuple[str, ...]
    #: Ids of cases; empty where ``patterns`` say which they are.
    cases: tuple[str, ...] = ()
    #: Patterns by part of a case (scenario, strategy, world_size, dtype); a part left out is any.
    patterns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Patterns, or PEP 440 ranges, of facts of the cell.
    facts: dict[str, str] = field(default_factory=dict)
    #: What is searched for in the diagnosis, the quantity, and the error.
    looks: dict[str, re.Pattern[str]] = field(default_factory=dict)
    #: Patterns of an operation's checks: these diverge, each pattern's, and no others.
    checks: tuple[str, ...] = ()
    not_run: bool = False
    #: It does not show in every run: a pass is none the less one.
    sometimes: bool = False
    expires: date | None = None
    program: str | None = None

    @property
    def world_sizes(self) -> set[int]:
        """The world sizes that it names."""
        named = {int(size) for size in self.patterns.get("world_size", ())}
        ids = (re.search(r"-ws(\d+)-[^-]+$", case) for case in self.cases)
        return named | {int(found[1]) for found in ids if found}

    def joined(self, other: Entry) -> Entry | None:
        """What both say of a case whose checks each of them knows a part of; None where they do not."""
        if not (self.checks and other.checks and self.failure == other.failure):
            return None
        return replace(
            self,
            where=f"{self.where} and {other.where}",
            reason=f"{self.reason}; {other.reason}",
            link=f"{self.link} {other.link}",
            looks={**self.looks, **other.looks},
            checks=(*self.checks, *other.checks),
        )

    def covered(self, every: CaseSet) -> list[Case]:
        """The cases that it is about, where it is about their device."""
        if self.cases:
            return [every.by_id[case] for case in self.cases if case in every.by_id]
        meant = {
            part: {value for value in values if among(value, self.patterns[part])}
            if part in self.patterns
            else values
            for part, values in every.values.items()
        }
        return [
            case
            for (scenario, strategy), cases in every.groups.items()
            if scenario in meant["scenario"] and strategy in meant["strategy"]
            for case in cases
            if str(case.world_size) in meant["world_size"] and case.dtype in meant["dtype"]
        ]

    def idle(self, every: CaseSet) -> list[str]:
        """Its ids and patterns that none of the cases answers to, each in words.

        Where every one has its case and none answers to all of them, it says that.
        """
        found = [repr(case) for case in self.cases if case not in every.by_id]
        for part, patterns in self.patterns.items():
            found += [
                f"{part} {pattern!r}"
                for pattern in patterns
                if not any(
                    fnmatchcase(value, pattern.removeprefix("!")) for value in every.values[part]
                )
            ]
        if not found and not self.covered(every):
            return ["all its patterns together"]
        return found

    def judge(self, outcome: Outcome) -> Outcome:
        """What the outcome of one of its cases is: expected, fixed, or another failure.

        What says nothing about the case (not supported, an error of the harness) stays as it is.
        """
        facts = {**outcome.facts, "expectation": self.where, "link": self.link}
        if outcome.status is Status.PASSED and self.sometimes:
            return replace(outcome, facts=facts)
        if outcome.status is Status.PASSED:
            message = f"fixed: remove this entry: {self.where} ({self.reason})"
            return Outcome(Status.FIXED, message, outcome.message, facts)
        found = kind(outcome)
        if found is None:
            return outcome
        if self._describes(outcome, found):
            message = f"{found}: {self.reason} ({self.link}; {self.where})"
            facts |= {"failure": found, "reason": self.reason}
            detail = "\n".join(filter(None, [outcome.message, outcome.detail]))
            return Outcome(Status.EXPECTED, message, detail, facts)
        message = f"{outcome.message}; not what {self.where} expects, which is {self.described}"
        return Outcome(outcome.status, message, outcome.detail, facts)

    def spared(self) -> Outcome:
        """The outcome of a case that it declares not to be run."""
        message = f"{self.failure}: {self.reason} ({self.link}; {self.where})"
        facts = {"expectation": self.where, "link": self.link, "reason": self.reason}
        return Outcome(Status.NOT_RUN, message, facts=facts)

    @property
    def described(self) -> str:
        """The failure that it expects, in one line."""
        looks = [f"{name} {pattern.pattern!r}" for name, pattern in self.looks.items()]
        looks += [f"check {name!r}" for name in self.checks]
        return ", ".join([self.failure, *looks])

    def _describes(self, outcome: Outcome, found: str) -> bool:
        texts = {
            "diagnosis": str(outcome.facts.get("diagnosis", "")),
            # A divergence is "step 0, gradient 'weight', rank 0: off by ...".
            "quantity": outcome.message.partition(": ")[0],
            "error": f"{outcome.message}\n{outcome.detail}",
        }
        alike = all(pattern.search(texts[name]) for name, pattern in self.looks.items())
        return found == self.failure and alike and self._checks_are(outcome)

    def _checks_are(self, outcome: Outcome) -> bool:
        """Whether all that diverged is known, and all that is known diverged."""
        if not self.checks:
            return True
        names = str(outcome.facts.get("diverged", "")).split("; ")
        known = all(any(fnmatchcase(name, one) for one in self.checks) for name in names)
        return known and all(any(fnmatchcase(name, one) for name in names) for one in self.checks)


def kind(outcome: Outcome) -> str | None:
    """Which of :data:`FAILURES` an outcome is; None where it is none."""
    if outcome.status is Status.FAILED:
        return "wrong numbers" if "ratio" in outcome.facts else "raised"
    return {Status.CRASH: "crash", Status.TIMEOUT: "timeout"}.get(outcome.status)


def among(value: str, patterns: tuple[str, ...]) -> bool:
    """Whether a value is one of the patterns': some one has it, and none with ``!`` before it.

    Where all of them leave something out, all else is meant.
    """
    out = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    into = [pattern for pattern in patterns if not pattern.startswith("!")] or ["*"]
    return any(fnmatchcase(value, p) for p in into) and not any(fnmatchcase(value, p) for p in out)
