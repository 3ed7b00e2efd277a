"""The selection again and again: each round in another order, with other data."""

from __future__ import annotations

import random
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.outcome import Outcome

__all__ = ["Plan", "Rounds", "duration"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(words: str) -> float:
    """Seconds of a duration such as ``90``, ``90s``, ``30m`` or ``2h``; raises :class:`BadRequest`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", words)
    if found is None or not float(found[1]):
        raise BadRequest(f"--soak {words!r}: it must be a duration, for example 90s, 30m or 2h")
    return float(found[1]) * _UNITS[found[2] or "s"]


@dataclass(frozen=True)
class Plan:
    """Which rounds a run makes. ``seed`` and a round's number decide its order and its data."""

    seed: int
    #: The number of rounds; None for no end.
    count: int | None = None
    #: After so many seconds, no other round begins; None for no limit.
    seconds: float | None = None
    until_failure: bool = False
    #: The number of the first round.
    first: int = 0

    def order(self, cases: Sequence[Case], number: int) -> list[Case]:
        """The cases in the order of a round."""
        return random.Random(f"{self.seed}/{number}").sample(list(cases), len(cases))  # noqa: S311

    def data(self, number: int) -> int:
        """The seed of the models and batches of a round."""
        return zlib.crc32(f"{self.seed}/{number}".encode())


@dataclass
class _Tally:
    """What the rounds of one case have shown so far."""

    first: Outcome
    rounds: int = 0
    failures: int = 0
    failed_in: int = 0
    ratio: float = 0.0

    def add(self, number: int, outcome: Outcome) -> bool:
        """Count an outcome; returns whether it changes more than the counts."""
        self.rounds += 1
        self.ratio = max(self.ratio, float(outcome.facts.get("ratio", 0.0)))
        if outcome.status.bad:
            self.failures += 1
            if self.failures == 1:
                self.first, self.failed_in = outcome, number
        return self.rounds == 1 or (outcome.status.bad and self.failures == 1)

    def outcome(self, plan: Plan) -> Outcome:
        """One outcome for all rounds: one failure in any number of rounds is a failure."""
        facts = {**self.first.facts, "rounds": self.rounds, "rounds_failed": self.failures}
        if not self.failures:
            ratio = {"ratio": self.ratio} if "ratio" in facts else {}
            return replace(self.first, facts={**facts, **ratio})
        facts |= {"first_failed_round": self.failed_in, "seed": plan.data(self.failed_in)}
        message = (
            f"{self.failures} of {self.rounds} rounds failed, first round {self.failed_in} of "
            f"--shuffle={plan.seed}: {self.first.message}"
        )
        again = (
            "for the whole of that round, with its order: in the command of this run, put "
            f"--shuffle={plan.seed} --round={self.failed_in} in place of --repeat or --soak"
        )
        detail = "\n".join(filter(None, [self.first.detail, again]))
        return replace(self.first, message=message, detail=detail, facts=facts)


@dataclass
class Rounds:
    """The rounds of a run: their cases and what they showed."""

    plan: Plan
    number: int = 0
    made: int = 0
    _tallies: dict[Case, _Tally] = field(default_factory=dict)

    def __iter__(self) -> Iterator[int]:
        """The numbers of the rounds to make; each is made when the next one is asked for."""
        plan, began = self.plan, time.monotonic()
        while plan.count is None or self.made < plan.count:
            if plan.seconds is not None and self.made and time.monotonic() - began > plan.seconds:
                return
            self.number = plan.first + self.made
            yield self.number
            self.made += 1
            if plan.until_failure and self.failed():
                return

    def add(self, case: Case, outcome: Outcome) -> tuple[Outcome, bool]:
        """The outcome of all rounds of a case so far, and whether it says something new."""
        tally = self._tallies.setdefault(case, _Tally(outcome))
        new = tally.add(self.number, outcome)
        return tally.outcome(self.plan), new

    def failed(self) -> list[Case]:
        """The cases that failed in any round."""
        return [case for case, tally in self._tallies.items() if tally.failures]

    def failed_in(self, case: Case) -> int | None:
        """The first round in which a case failed; None if it did not."""
        tally = self._tallies.get(case)
        return tally.failed_in if tally is not None and tally.failures else None
