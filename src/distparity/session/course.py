"""How any case runs: whether it can run here, which limits to check first, and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distparity.core import processes, refusal
from distparity.core.assignment import Question, Training
from distparity.core.case import Case
from distparity.core.known_limit import ATTEMPTED
from distparity.core.outcome import Outcome, Status
from distparity.core.spool import Spools
from distparity.core.torch_facts import TorchFacts
from distparity.results import pairs
from distparity.session.cell import Cell
from distparity.session.operation_case import operate, spell
from distparity.session.placement import Way, merged, of_pairs, placed
from distparity.session.training_case import SEED, evaluate, spell_training
from distparity.worlds.device_pool import Pool
from distparity.worlds.fleet import Fleet
from distparity.worlds.scheduler import Job

__all__ = ["Course"]


class Course:
    """Makes the scheduler's job for each case.

    ``limit`` is the time limit of a task, in seconds, but for large scenarios and some operations, which
    have more; ``spools`` has the run's spool files; ``largest`` is as for :class:`Operating`.
    """

    def __init__(
        self,
        torch: TorchFacts,
        cells: list[Cell],
        limit: float,
        spools: Spools,
        placements: tuple[str, ...] = (),
        fleet: Fleet | None = None,
        largest: int | None = None,
        pools: Mapping[str, Pool] | None = None,
    ) -> None:
        self.torch = torch
        self.limit = limit
        self._spools = spools
        self._placements = placements
        self._largest = largest
        #: The nodes whose pairs all run each case; None if they do not.
        self._fleet = fleet
        self._pools = pools or {}
        self._cells = {cell.device: cell for cell in cells}

    def cell(self, case: Case) -> Cell:
        """The cell that a case belongs to."""
        return self._cells[case.device]

    def job(self, case: Case, **how: Any) -> Job[Outcome]:
        """Run the case from beginning to end, as a job for the scheduler.

        On several nodes, it runs with one placement after the other until one does not pass. ``how`` is
        as for :meth:`_once`.
        """
        if not self._placements:
            return (yield from self._once(case, **how))
        outcomes: list[Outcome] = []
        for way in self._ways(case.device):
            once = self._once(case, **how)
            outcomes.append((yield from placed(once, way, case.device)))
            if self._fleet is None and outcomes[-1].status is not Status.PASSED:
                break
        return merged(outcomes) if self._fleet is None else of_pairs(outcomes)

    def _ways(self, device: str) -> list[Way]:
        if self._fleet is None:
            return [Way(placement) for placement in self._placements]
        return [
            Way(pairs.name(self._fleet.names(pair), devices), pair, devices)
            for pair, devices in pairs.every(self._fleet.takers, self._devices(device))
            if (pool := self._pools.get(device)) is None or pool.together(devices)
        ]

    def _devices(self, device: str) -> Callable[[int], int]:
        """How many devices of its own a rank could have on a node; one on the CPU, and if ranks share it."""
        pool = self._pools.get(device)
        return (lambda _: 1) if pool is None or pool.sharing else pool.on

    def _once(
        self,
        case: Case,
        *,
        mutant: str | None = None,
        seed: int = SEED,
        fresh: bool = False,
        alive: bool = True,
        checks: tuple[str, ...] = (),
    ) -> Job[Outcome]:
        """Run the case with one placement.

        ``mutant`` names a deliberate fault to inject. With ``fresh``, the case runs in a new world.
        With ``alive=False``, the check that the scenario is evidence is left out. ``checks`` are the
        names of the only checks of an operation to make; empty for all.
        """
        refusal = self.out_of_reach(case)
        if refusal is not None:
            return refusal
        found = self.cell(case).found
        limit = self.limit * found.slowness
        if case.scenario in self.torch.operations:
            what = self.torch.operations[case.scenario]
            outcome = yield from operate(
                case,
                limit * what.patience,
                found,
                mutant=mutant,
                seed=seed,
                fresh=fresh,
                checks=checks,
                largest=self._largest,
                alone=what.alone,
            )
        else:
            training = Training.of(
                case,
                seed,
                self.torch.exchange(case.scenario, case.strategy, case.dtype),
                resume_world_size=self.torch.strategies[case.strategy].resume_world_size,
                mutant=mutant,
            )
            question = self._question(case)
            limit *= self.torch.scenarios[case.scenario].patience
            outcome = yield from evaluate(
                case, training, limit, self._spools, question, fresh=fresh, alive=alive
            )
        return self._refused(outcome, found.refuses)

    def program(self, case: Case, outcome: Outcome) -> Job[str]:
        """Write what is wrong in a case as a program that needs torch alone, and return its text.

        Raises :class:`distparity.core.bad_request.BadRequest` if there is none for such a case.
        """
        if case.scenario in self.torch.operations:
            return (yield from spell(case, next(iter(outcome.diverged), None), self.limit))
        exchange = self.torch.exchange(case.scenario, case.strategy, case.dtype)
        training = Training.of(case, SEED, exchange)
        first = None if outcome.first is None else outcome.first.quantity
        return (yield from spell_training(case, training, first, self.limit))

    def out_of_reach(self, case: Case) -> Outcome | None:
        """The outcome of a case that cannot run here whatever torch supports; None for any other."""
        found, facts = self.cell(case).found, case.facts
        if case.scenario not in self.torch.operations:
            scenario = self.torch.scenarios[case.scenario]
            small = scenario.too_large(processes.memory())
            if small is not None:
                return Outcome(Status.NOT_AVAILABLE, f"{case.scenario}: {small}", facts=facts)
            features = (*scenario.features, case.dtype)
            how = self.torch.strategies[case.strategy]
            why = how.refuses(features) or how.too_many(case.world_size, scenario)
            if why is not None:
                return Outcome(Status.NOT_SUPPORTED, f"{case.strategy}: {why}", facts=facts)
        most = found.most_ranks
        if most is not None and case.world_size > most:
            parts = len(found.groups) > 1
            have = f"at most {most} belong together" if parts else f"device_count() is {most}"
            message = (
                f"{case.device}: {case.world_size} ranks need {case.world_size} devices, and {have}"
            )
            return Outcome(Status.NOT_AVAILABLE, message, facts=facts)
        if case.dtype in found.lacks:
            return Outcome(Status.NOT_SUPPORTED, found.lacks[case.dtype], facts=facts)
        return None

    def _question(self, case: Case) -> Question | None:
        """What torch is asked to do before the case runs; None if no limit is declared."""
        found, features = self.cell(case).found, self.torch.scenarios[case.scenario].features
        where: Any = (self.torch.release, found.type, case.dtype, features, found.no_reductions)
        limits = self.torch.strategies[case.strategy].limits
        asked = [one.feature for one in limits if one.applies(*where)]
        if not asked:
            return None
        # Only training the scenario shows whether torch refuses one of its own features.
        own = any(feature not in (None, *ATTEMPTED) for feature in asked)
        return Question(
            strategy=case.strategy,
            dtype=case.dtype,
            parts=case.world_size,
            features=tuple(sorted({one for one in asked if one is not None})),
            scenario=case.scenario if own else None,
            seed=SEED,
        )

    def _refused(self, outcome: Outcome, refusals: dict[str, str]) -> Outcome:
        """The outcome of a case in which the device refused something, in words that it declared."""
        origin = outcome.facts.get("raised_by", "")
        fact = refusal.fact_of(refusals.items(), outcome.message, origin)
        if fact is None:
            return outcome
        said = f"{fact}: torch {self.torch.torch} says {outcome.message}"
        return Outcome(Status.NOT_SUPPORTED, said, outcome.detail, outcome.facts)
