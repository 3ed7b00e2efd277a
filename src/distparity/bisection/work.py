"""A whole bisection: first both ends, then by halves; its results as lines and as JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distparity.bisection.candidates import Candidate, Span
from distparity.bisection.environment import Environments, NoEnvironment
from distparity.bisection.observation import PASSES, Observation, Question, observe
from distparity.bisection.search import Found, every, search
from distparity.core.bad_request import BadRequest

__all__ = ["Bisection", "Refused"]

Say = Callable[[str], None]
#: Runs a case: the interpreter, the folder with the suite, the case, the number of runs.
Observe = Callable[[Path, Path, Question, int], Observation]

#: The schema of the JSON; it increases if a reader of the previous schema would misread it.
FORMAT = 1
GOOD = "good"
BAD = "bad"


class Refused(BadRequest):
    """An end is not as good or bad as the user says, so there is no change to find."""


@dataclass
class Bisection:
    """Finds the release from ``good`` to ``bad`` that changed the result of the case.

    Without a ``factor``, a release is good if the case passes, and bad if its outcome is of the bad
    end's kind. With a ``factor``, it is also bad if its ratio is more than ``factor`` times that of
    the good end.
    """

    span: Span
    question: Question
    factor: float | None = None
    runs: int = 1
    say: Say = print
    observe: Observe = observe
    seen: dict[str, Observation] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    refused: str = ""

    def run(self, environments: Environments, *, exhaustive: bool = False) -> None:
        """Run the case with both ends, then between them. Raises :class:`Refused`."""
        self._environments = environments
        self.say(self._outlook(exhaustive=exhaustive))
        try:
            self._check_ends()
        except Refused as error:
            self.refused = str(error)
            raise
        last = len(self.span.candidates) - 1
        search_all = every if exhaustive else _one
        for found in search_all(0, last, self._kind):
            self.found.append(found)

    def _outlook(self, *, exhaustive: bool) -> str:
        names = [candidate.name for candidate in self.span.candidates]
        # Both ends, and one for each halving of the range between them.
        most = len(names) if exhaustive else 2 + (len(names) - 2).bit_length()
        return f"{names[0]} to {names[-1]}: {len(names)} releases, {most} to try"

    # -- what a release is ---------------------------------------------------------------------

    def _check_ends(self) -> None:
        good = self._look(self.span.good)
        if good.kind != PASSES:
            raise Refused(f"{self.span.good.name} is not good: {good}")
        bad = self._look(self.span.bad)
        if self._judge(bad) == BAD:
            return
        why = f"{self.span.bad.name} is not bad: {bad}"
        if bad.kind == PASSES and self.factor is not None:
            why += (
                f"; at {self.span.good.name} it is {good.ratio:.3g}, and the factor {self.factor:g}"
            )
        elif bad.kind is None:
            why = f"{self.span.bad.name} is not bad, because it cannot be judged: {bad}"
        raise Refused(why)

    def _kind(self, place: int) -> str | None:
        return self._judge(self._look(self.span.candidates[place]))

    def _judge(self, seen: Observation) -> str | None:
        if seen.kind == PASSES:
            return BAD if self._drifted(seen) else GOOD
        # A third kind, such as *not supported* between a pass and a failure, is like neither end.
        same = seen.kind is not None and seen.kind == self.seen[self.span.bad.name].kind
        drift = self.factor is not None and self.seen[self.span.bad.name].kind == PASSES
        return BAD if same or (drift and seen.kind == "fails") else None

    def _drifted(self, seen: Observation) -> bool:
        good = self.seen[self.span.good.name].ratio
        if self.factor is None or good is None or seen.ratio is None:
            return False
        return seen.ratio > self.factor * good

    def _look(self, candidate: Candidate) -> Observation:
        if candidate.name not in self.seen:
            self.seen[candidate.name] = self._see(candidate)
            self.say(self._line(candidate))
        return self.seen[candidate.name]

    def _see(self, candidate: Candidate) -> Observation:
        begun = ready = time.monotonic()
        try:
            with self._environments.of(candidate) as python:
                ready = time.monotonic()
                seen = self.observe(python, self._environments.suite, self.question, self.runs)
                ended = time.monotonic()
        except NoEnvironment as error:
            ready = ended = time.monotonic()
            seen = Observation("not installed", str(error))
        self.seconds[candidate.name] = {"install": ready - begun, "run": ended - ready}
        return _of(candidate, seen)

    def _line(self, candidate: Candidate) -> str:
        seen = self.seen[candidate.name]
        end = candidate in (self.span.good, self.span.bad)
        skipped = "" if end or self._judge(seen) else "skipped, "
        took = self.seconds[candidate.name]
        times = f"installed in {took['install']:.0f} s, " * (candidate.source is not None)
        return f"{candidate.name:10} {skipped}{seen}  [{times}ran in {took['run']:.0f} s]"

    # -- what came of it -----------------------------------------------------------------------

    @property
    def exact(self) -> bool:
        """True if no change has releases before it that could not be judged."""
        return bool(self.found) and not any(found.between for found in self.found)

    def lines(self) -> list[str]:
        """The result as text."""
        return [line for found in self.found for line in self._lines_of(found)]

    def _lines_of(self, found: Found) -> list[str]:
        before, after = self.span.candidates[found.before], self.span.candidates[found.after]
        lines = [
            f"{self.question.case} on {self.question.device}:",
            f"  {before.name:10} {self.seen[before.name]}",
            f"  {after.name:10} {self.seen[after.name]}",
        ]
        between = [self.span.candidates[place].name for place in found.between]
        if between:
            names = ", ".join(between)
            lines.append(f"it changed in one of {names}, {after.name}: {names} could not be judged")
        else:
            lines.append(f"the first release in which it changed is {after.name}")
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "case": self.question.case,
            "device": self.question.device,
            "good": self.span.good.name,
            "bad": self.span.bad.name,
            "factor": self.factor,
            "refused": self.refused or None,
            "exact": self.exact,
            "changes": [self._change(found) for found in self.found],
            "releases": [
                {
                    "release": candidate.name,
                    "python": candidate.python,
                    "asked": candidate.name in self.seen,
                    **self._seen(candidate),
                }
                for candidate in self.span.candidates
            ],
        }

    def _change(self, found: Found) -> dict[str, Any]:
        return {
            "first": None if found.between else self.span.candidates[found.after].name,
            "before": self.span.candidates[found.before].name,
            "after": self.span.candidates[found.after].name,
            "unjudged": [self.span.candidates[place].name for place in found.between],
        }

    def _seen(self, candidate: Candidate) -> dict[str, Any]:
        seen = self.seen.get(candidate.name)
        if seen is None:
            return {}
        seconds = self.seconds.get(candidate.name, {})
        return {
            **seen.to_json(),
            "kind": seen.kind,
            **{f"seconds_{part}": round(value, 1) for part, value in seconds.items()},
        }


def _one(first: int, last: int, ask: Callable[[int], str | None]) -> list[Found]:
    return [search(first, last, ask)]


def _of(candidate: Candidate, seen: Observation) -> Observation:
    """The observation, if the right torch ran: a variable or an index may have chosen another one."""
    wanted = candidate.name
    # The user's own name for an interpreter (a vendor's release "1.21") need not be torch's version.
    if not seen.torch or not re.match(r"2\.\d+\.\d", wanted):
        return seen
    if seen.torch == wanted or seen.torch.startswith(f"{wanted}+"):
        return seen
    return Observation("another torch", f"torch {wanted} should have run, but {seen.torch} ran")
