"""Proof that the suite can fail: every mutant, with every strategy and scenario it concerns."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.core.torch_facts import MutantFacts
from distparity.session.options import Options
from distparity.session.run import Run

__all__ = ["Finding", "SelfCheck", "in_turn", "selfcheck"]

#: A mutant under a strategy, in a world size and a precision.
Fault = tuple[str, str, int, str]


@dataclass
class Finding:
    """One mutant in one case, and the suite's outcome for it."""

    mutant: str
    case: Case
    outcome: Outcome
    #: As :meth:`distparity.core.torch_facts.TorchFacts.precision` says it.
    precision: str = ""

    @property
    def fault(self) -> Fault:
        return self.mutant, self.case.strategy, self.case.world_size, self.precision

    @property
    def caught(self) -> bool:
        """True if the verdict failed, or torch itself did: a crash, a hang or an exception."""
        return self.outcome.status in (Status.FAILED, Status.CRASH, Status.TIMEOUT)

    @property
    def diagnosis(self) -> str | None:
        found = self.outcome.facts.get("diagnosis")
        return None if found is None else str(found)

    def to_json(self, known: SelfCheck) -> dict[str, Any]:
        """One line of a kept file."""
        return {
            "torch": known.torch,
            "mutant": self.mutant,
            "title": known.mutants[self.mutant].title,
            "equivalent": known.mutants[self.mutant].equivalent is not None,
            **self.case.facts,
            "precision": self.precision,
            "status": self.outcome.status.value,
            "message": self.outcome.message,
            "caught": self.caught,
            "ratio": self.outcome.facts.get("ratio"),
            "one_rank_shows_below": self.outcome.facts.get("one_rank_shows_below"),
        }


@dataclass
class SelfCheck:
    """All findings of a self-check, and what follows from them."""

    torch: str
    mutants: dict[str, MutantFacts]
    findings: list[Finding] = field(default_factory=list)
    #: Whether only some mutants ran: then a pair that catches none of them is not called blind.
    some: bool = False

    def of(self, mutant: str) -> list[Finding]:
        """The findings of one mutant."""
        return [finding for finding in self.findings if finding.mutant == mutant]

    def errors(self) -> list[Finding]:
        """The findings that could not be judged: no evidence either way."""
        return [f for f in self.findings if f.outcome.status is Status.ERROR]

    def missed(self) -> list[Fault]:
        """The mutants that no scenario caught, by strategy, world size and precision."""
        seen: dict[Fault, bool] = {}
        for f in self.findings:
            seen[f.fault] = seen.get(f.fault, False) or f.caught
        return [key for key, caught in seen.items() if not caught and not self._equivalent(key[0])]

    def misnamed(self) -> list[Finding]:
        """Findings whose diagnosis does not fit the mutant."""
        return [
            f
            for f in self.findings
            if f.diagnosis is not None
            and not any(words in f.diagnosis for words in self.mutants[f.mutant].diagnosis)
        ]

    def disproved(self) -> list[Finding]:
        """Mutants that are declared to be equivalent, and were caught."""
        return [f for f in self.findings if f.caught and self._equivalent(f.mutant)]

    def blind(self) -> list[str]:
        """Pairs of a scenario and a strategy that catch no mutant: they are no evidence."""
        if self.some:
            return []
        pairs: dict[str, bool] = {}
        for f in self.findings:
            key = f"{f.case.scenario} / {f.case.strategy}"
            pairs[key] = pairs.get(key, False) or f.caught
        return [pair for pair, sees in pairs.items() if not sees]

    @property
    def passed(self) -> bool:
        wrong = (self.missed(), self.misnamed(), self.disproved(), self.blind(), self.errors())
        return bool(self.findings) and not any(wrong)

    def _equivalent(self, mutant: str) -> bool:
        return self.mutants[mutant].equivalent is not None


def selfcheck(
    options: Options,
    dtypes: Collection[str],
    names: list[str] | None = None,
    *,
    once: bool = False,
    kept: Path | None = None,
) -> SelfCheck:
    """Run the mutants (all, or those in ``names``) on the devices and world sizes of ``options``.

    A scenario is checked in those of its dtypes that ``dtypes`` names, or in its first. With ``once``,
    the scenarios are tried one after the other until one catches the fault, for each mutant, strategy,
    world size and precision; the equivalent mutants run in every case that another one ran in. Each
    finding is appended to the file ``kept`` as one line of JSON.
    Raises :class:`distparity.core.bad_request.BadRequest`.
    """
    run = Run(options)

    def precision(case: Case) -> str:
        return run.torch.precision(case.scenario, case.strategy, case.dtype)

    run.start()
    try:
        run.ready()
        # With ``once``, a pair is not asked for all faults either, and may be blind to those.
        some = once or names is not None
        found = SelfCheck(run.torch.torch, run.torch.mutants, some=some)
        todo = [
            (case, mutant)
            for case in _cases(run, dtypes)
            for mutant in run.torch.mutants
            if (names is None or mutant in names) and _concerns(run, mutant, case)
        ]
        with (kept or Path("/dev/null")).open("a", encoding="utf-8") as file:
            for tried in in_turn(todo, found, precision) if once else [todo]:
                for (case, mutant), outcome in run.side_by_side(
                    tried, lambda one: run.course.job(one[0], mutant=one[1])
                ):
                    if outcome.status.skipped:
                        continue
                    finding = Finding(mutant, case, outcome, precision(case))
                    found.findings.append(finding)
                    print(json.dumps(finding.to_json(found)), file=file, flush=True)
        return found
    finally:
        run.close(reported=True)


#: A case, and the mutant to run in it.
Trial = tuple[Case, str]


def in_turn(
    todo: Sequence[Trial], found: SelfCheck, precision: Callable[[Case], str]
) -> Iterator[list[Trial]]:
    """Rounds of one scenario for each mutant, strategy, world size and precision, while it is not caught.

    ``found`` has what the rounds before have found.
    """
    waiting: dict[Fault, list[Trial]] = {}
    for case, mutant in todo:
        if found.mutants[mutant].equivalent is None:
            fault = mutant, case.strategy, case.world_size, precision(case)
            waiting.setdefault(fault, []).append((case, mutant))
    while waiting:
        yield [trials.pop(0) for trials in waiting.values()]
        caught = {finding.fault for finding in found.findings if finding.caught}
        waiting = {key: trials for key, trials in waiting.items() if trials and key not in caught}
    ran = {finding.case for finding in found.findings}
    yield [
        (case, mutant)
        for case, mutant in todo
        if found.mutants[mutant].equivalent is not None and case in ran
    ]


def _cases(run: Run, dtypes: Collection[str]) -> Iterator[Case]:
    """The cases in which mutants run: trainings that torch computes right."""
    for cell in run.cells:
        for case in cell.cases:
            # Operations have their own faults.
            what = run.torch.scenarios.get(case.scenario)
            # A case that fails without a mutant shows nothing either.
            if what is not None and run.expected.of(case) is None:
                wanted = set(dtypes) & set(what.dtypes)
                if case.dtype in (wanted or what.dtypes[:1]):
                    yield case


def _concerns(run: Run, mutant: str, case: Case) -> bool:
    """Whether a fault has an effect in a case, and a larger one than rounding may have."""
    torch, fault = run.torch, run.torch.mutants[mutant]
    how = torch.strategies[case.strategy]
    what = torch.scenarios[case.scenario]
    allowed = torch.rounding[torch.coarsest(case.scenario, case.strategy, case.dtype)]
    exchanges = how.exchanges and "missing_rows_left_out" not in what.features
    reload = what.reload_after
    if how.resume_world_size == 1 and reload is not None and fault.at_step > reload:
        # After the resume there is one rank, and nothing to exchange.
        exchanges = False
    return (
        fault.sharded in (None, not how.replicates)
        and (fault.needs is None or fault.needs in what.features)
        and (exchanges or not fault.exchange)
        and fault.at_step < what.steps
        and not (fault.spares_first and how.enters_at_first)
        and (fault.size is None or fault.size > case.world_size * allowed)
    )


def table(found: SelfCheck) -> list[str]:
    """Format the result as text: every mutant, caught or missed, with its diagnoses."""
    lines = [f"torch {found.torch}: {len(found.mutants)} mutants, {len(found.findings)} runs"]
    width = max(map(len, found.mutants))
    lines += [
        f"{_state(found, name):<12} {name:<{width}}  {_account(found, name)}"
        for name in found.mutants
    ]
    for title, values in (
        (
            "MISSED",
            [
                f"{mutant} under {strategy} with {ranks} ranks in {precision}"
                for mutant, strategy, ranks, precision in found.missed()
            ],
        ),
        (
            "WRONG DIAGNOSIS",
            [f"{f.mutant} in {f.case.id}: {f.diagnosis}" for f in found.misnamed()],
        ),
        ("NOT EQUIVALENT", [f"{f.mutant} in {f.case.id}" for f in found.disproved()]),
        ("NO EVIDENCE", found.blind()),
        ("NOT JUDGED", _not_judged(found)),
    ):
        lines += [f"{title}: {value}" for value in values]
    return lines


def _not_judged(found: SelfCheck) -> list[str]:
    """One line per reason, with the first run that has it."""
    by: dict[str, list[Finding]] = {}
    for f in found.errors():
        by.setdefault(f.outcome.message, []).append(f)
    return [
        f"{runs[0].mutant} in {runs[0].case.id} (and {len(runs) - 1} more runs): {why}"
        if len(runs) > 1
        else f"{runs[0].mutant} in {runs[0].case.id}: {why}"
        for why, runs in by.items()
    ]


def pairs(found: SelfCheck) -> list[str]:
    """For each scenario and strategy, the mutants that it catches and those that it misses."""
    rows: dict[str, tuple[list[str], list[str]]] = {}
    for f in found.findings:
        key = f"{f.case.scenario} / {f.case.strategy}"
        rows.setdefault(key, ([], []))[0 if f.caught else 1].append(f.mutant)
    lines = []
    for key, (seen, unseen) in rows.items():
        blind = f"; misses {', '.join(sorted(set(unseen)))}" if unseen else ""
        lines.append(f"{key}: catches {len(set(seen))} of {len(set(seen + unseen))}{blind}")
    return lines


def _state(found: SelfCheck, name: str) -> str:
    if found.mutants[name].equivalent is not None:
        return "equivalent"
    runs = found.of(name)
    if not runs:
        return "not tried"
    return "missed" if any(name == mutant for mutant, *_ in found.missed()) else "caught"


def _account(found: SelfCheck, name: str) -> str:
    runs = found.of(name)
    seen = sum(f.caught for f in runs)
    ratios = [
        float(f.outcome.facts["ratio"]) for f in runs if f.caught and "ratio" in f.outcome.facts
    ]
    named = sorted({f.diagnosis.partition(":")[0] for f in runs if f.diagnosis is not None})
    least = f", smallest ratio {min(ratios):.3g}" if ratios else ""
    said = f"; diagnosis: {' | '.join(named)}" if named else ""
    return f"{found.mutants[name].title} ({seen}/{len(runs)} runs{least}{said})"
