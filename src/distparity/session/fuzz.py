"""A campaign of drawn trainings: draw, run, confirm what is red, shrink it, and keep it in a corpus."""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.core.refusal import TORCH
from distparity.core.torch_facts import ScenarioFacts, StrategyFacts
from distparity.drawing import known
from distparity.drawing.grammar import FIELDS, LAYERS, Draw, NoSentence, draw
from distparity.drawing.shrink import contains, shrink
from distparity.results import journal, junit_writer
from distparity.session import wording
from distparity.session.cell import Cell
from distparity.session.run import Run
from distparity.session.training_case import JUDGE, SEED
from distparity.worlds.scheduler import Job
from distparity.worlds.world import Answer, Failure, Task

__all__ = ["Campaign", "Finding", "case_of", "covered", "reason", "told"]

#: Scenarios of a batch, and cases of a scenario, which share its oracle.
BATCH, CASES = 12, 6
#: A finding must be red with two other seeds; with some of these, it may be no evidence.
SEEDS = range(SEED + 1, SEED + 6)
#: Words with which torch says that it does not do something, whatever the strategy declares.
_REFUSES = re.compile(
    r"(?i)not (yet |currently )?(be )?(supported|implemented)|n[o']t support|unsupported|"
    r"NotImplementedError|only supports?|must be evenly|does not have a sharding strategy|"
    r"got mixed torch.Tensor and DTensor|has to be contiguous"
)
_RAISED = re.compile(r"raised (\w+: [^,;]*)")
_NUMBER = re.compile(r"\d+(\.\d+)?(e[-+]?\d+)?")
_NO_EVIDENCE = "is no evidence"

Reason = tuple[str, ...]


def reason(outcome: Outcome) -> Reason | None:
    """Why a case is red, as two cases that show one defect have it; None for a case that is not red."""
    if outcome.status not in (Status.FAILED, Status.CRASH, Status.TIMEOUT):
        return None
    if outcome.failure == "raised":
        said = _RAISED.search(outcome.message)
        words = outcome.message if said is None else said[1]
        return "raised", _NUMBER.sub("#", words)[:60]
    if outcome.first is not None:
        return "wrong numbers", outcome.first.quantity.kind
    return (outcome.failure or outcome.status.value,)


def case_of(text: str, device: str) -> Case:
    """The case with an id; raises :class:`BadRequest` if it is no drawn one."""
    scenario, _, name = text.partition("/")
    found = re.fullmatch(r"([^/]+)-ws(\d+)-([^/-]+)", name)
    try:
        Draw.of(scenario)
    except NoSentence as error:
        raise BadRequest(str(error)) from None
    if found is None:
        raise BadRequest(f"{text!r}: an id is drawn.WORDS/STRATEGY-wsN-DTYPE")
    return Case(scenario, found[1], int(found[2]), found[3], device)


@dataclass
class Finding:
    """A defect: the smallest case that shows it, and the case in which it was first seen."""

    case: Case
    outcome: Outcome
    reason: Reason
    seen_in: str
    tried: int = 0
    times: int = 1
    known: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case.id,
            "draw": Draw.of(self.case.scenario).to_json(),
            "reason": list(self.reason),
            "message": self.outcome.message,
            "diagnosis": self.outcome.facts.get("diagnosis"),
            "seen_in": self.seen_in,
        }


@dataclass
class Campaign:
    """Draws from one seed in a run that is ready, with the findings and what was covered."""

    run: Run
    seed: int
    corpus: Path
    tell: Callable[[str], None] = print
    #: A deliberate fault in every case, to see that the campaign finds it.
    mutant: str | None = None
    findings: list[Finding] = field(default_factory=list)
    outcomes: dict[Case, Outcome] = field(default_factory=dict)
    #: Red cases that were not red again with other seeds.
    unconfirmed: dict[Case, Outcome] = field(default_factory=dict)
    #: Draws that one process cannot train, or that break a promise: faults of the grammar.
    faults: dict[str, str] = field(default_factory=dict)
    #: How often each known defect of torch was seen.
    known: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: How many cases were drawn, and the seconds for them, without those of shrinking.
    drawn: int = 0
    seconds: float = 0.0
    _lacking: dict[str, str] = field(default_factory=dict)

    # -- what the command does ---------------------------------------------------------------------

    def replay(self, ids: Sequence[str] = ()) -> None:
        """Run what the corpus has, or these cases, before anything is drawn."""
        chosen = {json.loads(line)["case"] for line in self._lines()} if not ids else set(ids)
        for cell in self.run.cells:
            todo = [case_of(text, cell.device) for text in sorted(chosen)]
            for case, outcome in self._outcomes(todo):
                why = reason(outcome)
                self.outcomes[case] = outcome
                if why is not None and not self._is_known(case, outcome, why):
                    self.findings.append(Finding(case, outcome, why, "the corpus", known=True))
                    self.tell(f"known: {case.id}: {outcome.message}")

    def go(self, seconds: float | None, count: int | None = None) -> None:
        """Draw until the time is over, or so many cases have run."""
        luck, began = random.Random(self.seed), time.monotonic()  # noqa: S311  no secret
        while (seconds is None or time.monotonic() - began < seconds) and (
            count is None or self.drawn < count
        ):
            start, red = time.monotonic(), []
            left = None if count is None else count - self.drawn
            for case, outcome in self._outcomes(self._batch(luck)[:left]):
                self.drawn += 1
                self.outcomes[case] = outcome
                if outcome.status is Status.PASSED:
                    self.pairs.update(Draw.of(case.scenario).pairs((case.strategy,)))
                elif reason(outcome) is not None:
                    red.append((case, outcome))
            self.seconds += time.monotonic() - start
            for case, outcome in red:
                self._look_into(case, outcome)
            scheduler = self.run.scheduler
            assert scheduler is not None and self.run.launcher is not None
            scheduler.forget("oracle", "reference", "ask")
            self.run.launcher.spools.renew()
            if scheduler.ended is not None:
                raise scheduler.ended

    # -- cases -------------------------------------------------------------------------------------

    def _batch(self, luck: random.Random) -> list[Case]:
        draws = [draw(luck) for _ in range(BATCH)]
        facts = self._describe(one.name for one in draws)
        cases: list[Case] = []
        for one in draws:
            if one.name in facts:
                for cell in self.run.cells:
                    cases += self._cases(one, facts[one.name], cell, luck)
        return list(dict.fromkeys(cases))

    def _cases(
        self, one: Draw, facts: ScenarioFacts, cell: Cell, luck: random.Random
    ) -> Iterator[Case]:
        """Some cases of a draw, in one dtype and mostly one world size, so that they share an oracle."""
        able = {
            name: how
            for name, how in self.run.torch.strategies.items()
            if how.refuses(facts.features) is None
        }
        families: dict[str, list[str]] = {}
        for name in able:
            families.setdefault(name.partition("_")[0], []).append(name)
        dtype = luck.choice(facts.dtypes) if luck.random() < 0.2 else facts.dtypes[0]
        size = luck.choices((2, 4, 3), (7, 3, 1))[0]
        most = cell.found.most_ranks or size
        for _ in range(min(CASES, len(able))):
            strategy = luck.choice(families[luck.choice(sorted(families))])
            fit = _size(able[strategy], one, size)
            if fit <= max(most, size):
                yield Case(one.name, strategy, fit, dtype, cell.device)

    def _describe(self, names: Iterator[str] | Sequence[str]) -> dict[str, ScenarioFacts]:
        """The facts about drawn scenarios, which the run knows from now on."""
        scheduler = self.run.scheduler
        assert scheduler is not None
        todo = [name for name in dict.fromkeys(names) if name not in self.run.torch.scenarios]

        def ask() -> Job[Any]:
            return (yield Task(JUDGE, "describe", {"names": todo}, limit=self.run.options.limit))

        if todo:
            found: Answer | Failure = scheduler.run(ask())
            if isinstance(found, Failure):
                raise BadRequest(f"draws cannot be described: {found.message}", found.detail)
            answer = found.results[0]
            self._lacking.update(answer["lacking"])
            self.run.learn(
                {name: ScenarioFacts.from_json(one) for name, one in answer["facts"].items()}
            )
        return self.run.torch.scenarios

    def _outcomes(self, cases: Sequence[Case]) -> Iterator[tuple[Case, Outcome]]:
        facts = self._describe([case.scenario for case in cases])
        todo = []
        for case in cases:
            if case.scenario not in facts:
                why = f"torch {self.run.torch.torch} has no {self._lacking[case.scenario]}"
                yield case, Outcome(Status.NOT_SUPPORTED, why, facts=case.facts)
            elif case.strategy not in self.run.torch.strategies:
                raise BadRequest(f"there is no strategy {case.strategy!r}")
            else:
                todo.append(case)
        for case, outcome in self.run.side_by_side(todo, self._job):
            yield case, self._settled(case, outcome)

    def _job(self, case: Case, *, seed: int = SEED, fresh: bool = False) -> Job[Outcome]:
        return self.run.course.job(case, seed=seed, fresh=fresh, mutant=self.mutant)

    def _settled(self, case: Case, outcome: Outcome) -> Outcome:
        """The outcome of a drawn case: torch's refusals, and what says nothing, are not red."""
        if outcome.failure == "raised" and outcome.facts.get("raised_by") == TORCH:
            said = _REFUSES.search(outcome.message)
            if said is not None:
                message = f"torch {self.run.torch.torch} says {outcome.message}"
                return replace(
                    outcome, status=Status.NOT_SUPPORTED, message=message, failure="", marks=()
                )
        if outcome.status is Status.ERROR and _NO_EVIDENCE in outcome.message:
            if any(word in outcome.message for word in (" promise", "the loss ", "different in")):
                self.faults[case.id] = outcome.message
            return Outcome(Status.NOT_RUN, outcome.message, facts=outcome.facts)
        if outcome.failure == "failed in one process" or outcome.status is Status.ERROR:
            self.faults[case.id] = outcome.message
            return Outcome(Status.ERROR, outcome.message, outcome.detail, outcome.facts)
        return outcome

    # -- what is red -------------------------------------------------------------------------------

    def _look_into(self, case: Case, outcome: Outcome) -> None:
        why = reason(outcome)
        assert why is not None
        if self._is_known(case, outcome, why):
            return
        again = next(
            (one for one in self.findings if one.reason == why and contains(case, one.case)), None
        )
        if again is not None:
            again.times += 1
            self.outcomes[case] = _again(outcome, again)
            return
        if not self._confirmed(case, why):
            self.unconfirmed[case] = outcome
            message = f"not red again with other seeds: {outcome.message}"
            self.outcomes[case] = replace(outcome, status=Status.FLAKY, message=message)
            self.tell(f"not confirmed: {case.id}: {outcome.message}")
            return
        # Not into a defect that is known, which would be told in its place.
        found = shrink(
            case,
            lambda todo: self._first([one for one in todo if not known.name_of(one, why)], why),
        )
        smallest = outcome if found.case == case else self.outcomes[found.case]
        earlier = next((one for one in self.findings if one.case == found.case), None)
        if earlier is not None:
            earlier.times += 1
            self.outcomes[case] = _again(outcome, earlier)
            return
        finding = Finding(found.case, smallest, why, case.id, found.tried)
        self.findings.append(finding)
        if found.case != case:
            self.outcomes[case] = _again(outcome, finding)
        with self.corpus.open("a", encoding="utf-8") as file:
            about = {**finding.to_json(), "torch": self.run.torch.torch, "seed": self.seed}
            print(json.dumps(about), file=file, flush=True)
        self.tell(f"finding: {found.case.id}: {smallest.message}")

    def _is_known(self, case: Case, outcome: Outcome, why: Reason) -> bool:
        name = known.name_of(case, why)
        if name is None:
            return False
        self.known[name] += 1
        message = f"known defect: {name}: {outcome.message}"
        self.outcomes[case] = replace(outcome, status=Status.EXPECTED, message=message)
        return True

    def _confirmed(self, case: Case, why: Reason) -> bool:
        scheduler, red = self.run.scheduler, 0
        assert scheduler is not None
        for seed in SEEDS:
            outcome = self._settled(case, scheduler.run(self._job(case, seed=seed, fresh=True)))
            if outcome.status is Status.NOT_RUN:
                continue
            found = reason(outcome)
            if found is None or found[0] != why[0]:
                return False
            red += 1
            if red == 2:
                return True
        return False

    def _first(self, todo: Sequence[Case], why: Reason) -> Case | None:
        """The first of these that is red for a reason; those after it may not have run."""
        able = self.run.torch.strategies
        facts = self._describe([case.scenario for case in todo])
        fit = [
            case
            for case in todo
            if case.scenario in facts
            and able[case.strategy].refuses(facts[case.scenario].features) is None
            and _fits(able[case.strategy], case.world_size)
        ]
        # Two at a time: more would mostly be of no use.
        for start in range(0, len(fit), 2):
            for case, outcome in self._outcomes(fit[start : start + 2]):
                if reason(outcome) == why:
                    self.outcomes[case] = outcome
                    return case
        return None

    def _lines(self) -> list[str]:
        if not self.corpus.exists():
            return []
        return [line for line in self.corpus.read_text("utf-8").splitlines() if line.strip()]

    # -- results -----------------------------------------------------------------------------------

    @property
    def red(self) -> bool:
        """Whether anything was found, or the grammar is wrong."""
        return bool(self.findings or self.unconfirmed or self.faults)

    def write(self) -> list[Path]:
        """Write one XML file per cell; returns their paths."""
        written, options = [], self.run.options
        for cell in self.run.cells:
            outcomes = {case: o for case, o in self.outcomes.items() if case.device == cell.device}
            side, xml = journal.paths(options.report_dir, cell.torch, f"{cell.name}-fuzz")
            header = {
                "part": True,
                "cell": {"torch": cell.torch, "device": f"{cell.name}-fuzz"},
                "facts": {**wording.cell_facts(self.run.torch, cell), **self.facts()},
                "cases": [case.id for case in outcomes],
                "allow_flaky": False,
                "about": {
                    case.id: {
                        **case.facts,
                        "rerun": wording.rerun([case], options, cell.found.replay),
                    }
                    for case in outcomes
                },
            }
            file = journal.Journal(side, xml, header)
            for case, outcome in outcomes.items():
                file.add(case.id, outcome)
            file.end("finished")
            written.append(junit_writer.write_from_journal(side))
        return written

    def facts(self) -> dict[str, Any]:
        """The numbers of the campaign."""
        counts = Counter(outcome.status.value for outcome in self.outcomes.values())
        return {
            "seed": self.seed,
            "drawn": self.drawn,
            "drawn_per_second": round(self.drawn / self.seconds, 2) if self.seconds else 0.0,
            "findings": len(self.findings),
            "not_confirmed": len(self.unconfirmed),
            "faults_of_the_grammar": len(self.faults),
            "pairs_covered": len(self.pairs),
            **{f"cases_{name.replace(' ', '_')}": number for name, number in counts.items()},
        }


def _again(outcome: Outcome, known: Finding) -> Outcome:
    message = f"as {known.case.id}: {outcome.message}"
    return replace(outcome, status=Status.EXPECTED, message=message)


def _fits(how: StrategyFacts, size: int) -> bool:
    most = size if how.most_ranks is None else how.most_ranks
    return how.least_ranks <= size <= most and size % how.ranks_multiple_of == 0


def _size(how: StrategyFacts, one: Draw, size: int) -> int:
    """The world size nearest to the one wanted for which the strategy is defined."""
    if "stages" in how.needs:
        # As many stages as there are layers for.
        return max(2, how.least_ranks)
    if "tensor_parallel" in how.needs and one.width % size:
        size = 2
    return next(n for n in (size, 4, 2, 3, how.least_ranks) if _fits(how, n))


def told(campaign: Campaign) -> list[str]:
    """The result as text."""
    facts = campaign.facts()
    lines = [", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())]
    for finding in campaign.findings:
        kind = "known" if finding.known else "finding"
        lines += [
            f"{kind}: {finding.case.id} (seen {finding.times} times)",
            f"    {finding.outcome.message}",
            *[f"    looks like: {d}" for d in [finding.outcome.facts.get("diagnosis")] if d],
            f"    first in {finding.seen_in}, shrunk by {finding.tried} cases",
        ]
        if not finding.known and campaign.mutant is None:
            case = finding.case
            asked = f"distparity explain {case.id} --device {case.device}"
            lines.append(f"    for torch: {asked} --program out.py --issue out.md")
    lines += [f"known defect of torch, {n} times: {name}" for name, n in campaign.known.items()]
    lines += [f"not confirmed: {c.id}: {o.message}" for c, o in campaign.unconfirmed.items()]
    return lines + [f"fault of the grammar: {c}: {why}" for c, why in campaign.faults.items()]


def covered(pairs: Counter[tuple[str, str]]) -> list[str]:
    """A Markdown table of how many pairs of words of two fields were green, of how many there are."""
    words = {**FIELDS, "layer": tuple(f"{layer}_layer" for layer in LAYERS)}
    lines = [
        "| | " + " | ".join(words) + " |",
        "|---" * (len(words) + 1) + "|",
    ]
    names = list(words)
    for row in names:
        shown = []
        for column in names:
            if names.index(column) >= names.index(row):
                shown.append("")
                continue
            every = [tuple(sorted(pair)) for pair in itertools.product(words[row], words[column])]
            seen = sum((one, other) in pairs for one, other in every)
            shown.append(f"{seen}/{len(every)}")
        lines.append(f"| {row} | " + " | ".join(shown) + " |")
    return lines
