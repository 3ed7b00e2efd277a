"""Proof that the suite can fail: every mutant, with every strategy and scenario it concerns."""

from __future__ import annotations

from dataclasses import dataclass, field

from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.core.torch_facts import MutantFacts
from distparity.session.options import Options
from distparity.session.run import Run

__all__ = ["Finding", "SelfCheck", "selfcheck"]


@dataclass
class Finding:
    """One mutant in one case, and the suite's outcome for it."""

    mutant: str
    case: Case
    outcome: Outcome

    @property
    def caught(self) -> bool:
        """True if the verdict failed, or torch itself did: a crash, a hang or an exception."""
        return self.outcome.status in (Status.FAILED, Status.CRASH, Status.TIMEOUT)

    @property
    def diagnosis(self) -> str | None:
        found = self.outcome.facts.get("diagnosis")
        return None if found is None else str(found)


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

    def missed(self) -> list[tuple[str, str]]:
        """Pairs of a mutant and a strategy with which no scenario caught it."""
        seen: dict[tuple[str, str], bool] = {}
        for f in self.findings:
            key = (f.mutant, f.case.strategy)
            seen[key] = seen.get(key, False) or f.caught
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


def selfcheck(options: Options, dtype: str, names: list[str] | None = None) -> SelfCheck:
    """Run the mutants (all, or those in ``names``) on the devices and world sizes of ``options``.

    Raises :class:`distparity.core.bad_request.BadRequest`.
    """
    run = Run(options)
    run.start()
    try:
        run.ready()
        found = SelfCheck(run.torch.torch, run.torch.mutants, some=names is not None)
        todo = [
            (case, mutant)
            for cell in run.cells
            for case in cell.cases
            # Operations have their own faults.
            if case.scenario in run.torch.scenarios
            and case.dtype == _dtype(run, case.scenario, dtype)
            # A case that fails without a mutant shows nothing either.
            and run.expected.of(case) is None
            for mutant in run.torch.mutants
            if (names is None or mutant in names) and _concerns(run, mutant, case)
        ]
        for (case, mutant), outcome in run.side_by_side(
            todo, lambda one: run.course.job(one[0], mutant=one[1])
        ):
            if not outcome.status.skipped:
                found.findings.append(Finding(mutant, case, outcome))
        return found
    finally:
        run.close(reported=True)


def _dtype(run: Run, scenario: str, wanted: str) -> str:
    """The dtype in which a scenario is checked: the requested one, else its first."""
    dtypes = run.torch.scenarios[scenario].dtypes
    return wanted if wanted in dtypes else dtypes[0]


def _concerns(run: Run, mutant: str, case: Case) -> bool:
    """Whether a fault has an effect in a case, and a larger one than rounding may have."""
    torch, fault = run.torch, run.torch.mutants[mutant]
    how = torch.strategies[case.strategy]
    what = torch.scenarios[case.scenario]
    reduced = torch.exchange(case.scenario, case.strategy, case.dtype).reduce_dtype
    dtypes = {case.dtype, reduced, what.computes_in} - {None}
    allowed = max(torch.rounding[str(dtype)] for dtype in dtypes)
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
        ("MISSED", [f"{mutant} under {strategy}" for mutant, strategy in found.missed()]),
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
    return "missed" if any(name == mutant for mutant, _ in found.missed()) else "caught"


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
