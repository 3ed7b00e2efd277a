"""Which mutants of order are noticed, in which mode, by the checker and by the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from distparity_async.order.equivalents import EQUIVALENT, REFUSED
from distparity_async.order.statements import MODULES, Statement

__all__ = ["Campaign", "Found", "Job", "Mutant"]

#: A run of the whole in which fewer mutants are reached says little.
LEAST = 25
#: In other modes than the first, a statement is left out in so many trainings, those first in which it
#: was noticed: their numbers confirm what the checker has seen.
CONFIRMED_IN = 2
#: The checker alone must see so many of those that make a difference.
SHARE = 0.95


@dataclass(frozen=True)
class Job:
    """A training, in a mode, without a statement (by its name) or with all of them."""

    training: str
    mode: str
    left_out: str | None = None


@dataclass
class Found:
    """What the ranks have found."""

    #: Of each rank: what it computed, as one text.
    digests: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    #: How often each statement was reached, on all ranks.
    reached: dict[str, int] = field(default_factory=dict)
    #: Why there is nothing of the above.
    failure: str = ""


class Trains(Protocol):
    """Who has ranks that train."""

    def run(self, job: Job) -> Found: ...


@dataclass
class Mutant:
    """A statement that was left out, and what became of it in each mode."""

    statement: Statement
    #: By mode: the training in which the checker reported something, and how many pairs.
    reports: dict[str, tuple[str, int]] = field(default_factory=dict)
    #: By mode: the training whose numbers were wrong.
    wrong: dict[str, str] = field(default_factory=dict)
    #: By mode: how a training failed.
    failures: dict[str, str] = field(default_factory=dict)
    #: Whether a training came to its end without it.
    has_ended: bool = False

    @property
    def wrapper(self) -> str:
        return MODULES[self.statement.module]

    @property
    def is_caught(self) -> bool:
        """By the checker or the numbers; a training that fails is not held for evidence."""
        return bool(self.reports or self.wrong)

    @property
    def why_equivalent(self) -> str | None:
        return EQUIVALENT.get(self.statement.name)

    @property
    def state(self) -> str:
        if self.why_equivalent is not None:
            return "NOT EQUIVALENT" if self.is_caught else "equivalent"
        if self.is_caught:
            return "caught"
        words = REFUSED.get(self.statement.name)
        if words and not self.has_ended and all(words in one for one in self.failures.values()):
            return "refused"
        return "FAILS" if self.failures else "MISSED"

    def cell(self, mode: str) -> str:
        """Who noticed it in a mode: the checker, with how many pairs, the numbers, both or neither."""
        seen = [str(self.reports[mode][1])] if mode in self.reports else []
        seen += ["wrong"] if mode in self.wrong else []
        return ", ".join(seen) or "none"

    @property
    def noticed_in(self) -> list[str]:
        """The trainings in which it was noticed, the first one first."""
        return [*(training for training, _ in self.reports.values()), *self.wrong.values()]

    def told(self) -> str:
        """The training in which it was noticed first, or why it was not."""
        if self.why_equivalent is not None and not self.is_caught:
            return self.why_equivalent
        if self.state == "refused":
            return f"torch raises: {REFUSED[self.statement.name]}"
        return self.noticed_in[0] if self.is_caught else self.state


@dataclass
class Campaign:
    """All mutants of the torch that is here in some modes, ``eager`` first."""

    worlds: Trains
    modes: Sequence[str]
    #: Parts of the names of trainings and of statements; all by default.
    trainings: Sequence[str] = ()
    statements: Sequence[str] = ()
    tell: Callable[[str], None] = print
    mutants: list[Mutant] = field(default_factory=list)
    #: Statements by which no training came.
    not_reached: list[Statement] = field(default_factory=list)
    #: What is wrong with trainings of which nothing was left out.
    unsound: list[str] = field(default_factory=list)
    #: Trainings that this torch cannot do.
    absent: dict[str, str] = field(default_factory=dict)

    def run(self, trainings: Iterable[str], statements: Iterable[Statement]) -> None:
        right = self._controls([one for one in trainings if _matches(one, self.trainings)])
        for statement in statements:
            if not _matches(statement.name, self.statements):
                continue
            by = [
                name
                for name, found in right.items()
                if found[self.modes[0]].reached.get(statement.name)
            ]
            if by:
                self._leave_out(Mutant(statement), by, right)
            else:
                self.not_reached.append(statement)

    def _controls(self, trainings: Iterable[str]) -> dict[str, dict[str, Found]]:
        """Each training with all statements: silent, and with the same numbers in all modes."""
        right: dict[str, dict[str, Found]] = {}
        for name in trainings:
            found = {mode: self.worlds.run(Job(name, mode)) for mode in self.modes}
            problems = list(_problems(found))
            failed = [one.failure for one in found.values() if one.failure]
            if failed:
                self.absent[name] = failed[0].strip().splitlines()[-1]
                problems = [f"fails: {self.absent[name]}"]
            elif problems:
                self.unsound += [f"{name}: {problem}" for problem in problems]
            else:
                right[name] = found
            self.tell(f"{name}: {'; '.join(problems) or 'silent'}")
        return right

    def _leave_out(
        self, mutant: Mutant, by: Sequence[str], right: dict[str, dict[str, Found]]
    ) -> None:
        for number, mode in enumerate(self.modes):
            order = [*dict.fromkeys([*mutant.noticed_in, *by])]
            for name in order[: CONFIRMED_IN if number else None]:
                found = self.worlds.run(Job(name, mode, mutant.statement.name))
                if found.failure:
                    mutant.failures.setdefault(mode, f"{name}: {found.failure}")
                    continue
                mutant.has_ended = True
                if found.reports:
                    mutant.reports.setdefault(mode, (name, len(found.reports)))
                if found.digests != right[name][mode].digests:
                    mutant.wrong.setdefault(mode, name)
                # Numbers are not expected to be wrong in ``eager``: there the checker says enough.
                if mode in mutant.reports and (mode == "eager" or mode in mutant.wrong):
                    break
        self.mutants.append(mutant)
        self.tell(f"{mutant.state}: {self._line(mutant)}")

    # -- what follows --------------------------------------------------------------------------

    @property
    def is_whole(self) -> bool:
        return not self.trainings and not self.statements

    @property
    def passed(self) -> bool:
        sound = all(one.state in ("caught", "equivalent", "refused") for one in self.mutants)
        enough = len(self.mutants) >= LEAST or not self.is_whole
        sees = len(self._seen) >= SHARE * len(self._effective)
        return sound and enough and sees and bool(self.mutants) and not self.unsound

    @property
    def _effective(self) -> list[Mutant]:
        return [one for one in self.mutants if one.state not in ("equivalent", "refused")]

    @property
    def _seen(self) -> list[Mutant]:
        return [one for one in self._effective if "eager" in one.reports]

    def summary(self) -> Iterator[str]:
        states = Counter(one.state for one in self.mutants)
        counted = ", ".join(f"{times} {state}" for state, times in states.items())
        yield f"{len(self.mutants)} statements reached, {len(self.not_reached)} not: {counted}"
        effective = self._effective
        for mode in self.modes:
            checker = sum(mode in one.reports for one in effective)
            numbers = sum(mode in one.wrong for one in effective)
            yield f"{mode}: the checker sees {checker} of {len(effective)}, the numbers show {numbers}"
        yield from (f"UNSOUND: {one}" for one in self.unsound)
        yield from (f"not here: {name}: {why}" for name, why in self.absent.items())
        for one in self.mutants:
            if one.state == "FAILS":
                yield from (f"FAILS: {one.statement.name}: {why}" for why in one.failures.values())

    def _line(self, mutant: Mutant) -> str:
        words = [f"{mutant.statement.place} {mutant.statement.text}"]
        for mode in self.modes:
            reports = mutant.reports.get(mode)
            said = [f"{reports[1]} reports ({reports[0]})" if reports else "no report"]
            if mode in mutant.wrong:
                said.append(f"wrong numbers ({mutant.wrong[mode]})")
            if mode in mutant.failures:
                said.append("fails")
            words.append(f"{mode}: {', '.join(said)}")
        return " | ".join(words)

    def markdown(self, torch: str) -> Iterator[str]:
        """The tables of ``docs/order-mutants.md``."""
        yield f"torch {torch}. " + ". ".join(self.summary()) + "."
        for wrapper in dict.fromkeys(MODULES.values()):
            mutants = [one for one in self.mutants if one.wrapper == wrapper]
            if not mutants:
                continue
            heads = [*(f"`{mode}`" for mode in self.modes), "where, or why not"]
            yield ""
            yield f"| {wrapper}: the statement that is left out | {' | '.join(heads)} |"
            yield f"|---|{'---|' * len(heads)}"
            for one in mutants:
                cells = [*(one.cell(mode) for mode in self.modes), one.told()]
                yield f"| `{one.statement.place}` `{one.statement.text}` | {' | '.join(cells)} |"


def _problems(found: dict[str, Found]) -> Iterator[str]:
    first = next(iter(found.values()))
    for mode, one in found.items():
        if one.reports:
            yield f"{len(one.reports)} reports in {mode}: {one.reports[0]}"
        if one.digests != first.digests:
            yield f"other numbers in {mode}"


def _matches(name: str, parts: Sequence[str]) -> bool:
    return not parts or any(part in name for part in parts)
