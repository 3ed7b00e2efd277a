"""One run of the suite: its options, its cells and cases, and their outcomes.

It knows nothing of pytest: the plugin asks it for cases and for their outcomes.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.naming import cell_name
from distparity.core.outcome import Outcome, Status
from distparity.core.redact import Redactor
from distparity.core.torch_facts import ScenarioFacts, TorchFacts
from distparity.core.wire import TooLarge
from distparity.results.journal import paths
from distparity.session import device_search, selection, shares, wording
from distparity.session.ahead import Ahead
from distparity.session.case_list import DEFAULT_WORLD_SIZES, CaseList, named_sizes
from distparity.session.cell import Cell
from distparity.session.course import Course
from distparity.session.expected import Expected
from distparity.session.gathering import Gathering
from distparity.session.options import Options
from distparity.session.reports import Reports
from distparity.session.rounds import Rounds
from distparity.worlds.launcher import Launcher, StartError
from distparity.worlds.scheduler import Job, Scheduler

__all__ = ["Run"]

T = TypeVar("T")

#: Outcomes that may differ the second time; a fault of the scenario or the harness does not.
_WORTH_ANOTHER = (Status.FAILED, Status.CRASH, Status.TIMEOUT)


class Run:
    """From options to outcomes. Call :meth:`start`, :meth:`ready`, :meth:`declare`, then
    :meth:`outcome` for each case in order, and finally :meth:`finish`.
    """

    #: The cases, and how they run; set when :meth:`ready` has returned.
    listed: CaseList
    course: Course
    #: The cases that have not begun; set when :meth:`declare` has returned.
    _queue: Ahead

    def __init__(self, options: Options) -> None:
        options.check()
        self.options = options
        self.launcher: Launcher | None = None
        self.scheduler: Scheduler | None = None
        self._gathering: Gathering | None = None
        self._redactor = Redactor(os.environ)
        self._reports = Reports(options, self._redactor)
        #: What went wrong with the run itself; if there is anything, the run fails.
        self.complaints = self._reports.complaints
        #: What else the terminal shows at the end.
        self.notes = self._reports.notes
        self._torch: TorchFacts | None = None
        self.expected = Expected(options)
        self._found = device_search.Found()
        #: With ``--shard``, by device: the ids of the cases of all shares.
        self._every: dict[str, list[str]] = {}
        self._rounds = None if options.rounds is None else Rounds(options.rounds)
        #: Called with a line about every round that ended.
        self.tell: Callable[[str], None] = lambda _: None
        self._resumed: set[Case] = set()

    @property
    def torch(self) -> TorchFacts:
        """The facts about torch; known once it has been imported."""
        assert self._torch is not None
        return self._torch

    @property
    def cells(self) -> list[Cell]:
        """One cell per kind of device that is requested and available, with its cases."""
        return self._found.cells

    # -- before the first case -----------------------------------------------------------------

    def start(self) -> None:
        """Begin to import torch in another process; returns at once.

        Raises :class:`BadRequest` if the report folder cannot be written.
        """
        try:
            self.options.report_dir.mkdir(parents=True, exist_ok=True)
            probe = self.options.report_dir / f".distparity-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise BadRequest(
                f"cannot write reports to {self.options.report_dir}: {error}"
            ) from None
        options = self.options
        if options.nodes is not None:
            self._gathering = Gathering(options.nodes, options.report_dir)
        self.launcher = Launcher(
            options.include,
            options.plugins,
            options.arithmetic,
            options.own_scenarios,
            options.own_modules,
            options.drawn,
            log=options.log,
            backend=options.backend,
            perturb=options.perturb,
        )

    def ready(self) -> None:
        """Wait for torch, look at the devices, and list the cases; raises :class:`BadRequest`."""
        assert self.launcher is not None
        options = self.options
        # Read the expectations while torch is imported. An error in them is reported in every cell,
        # and the cells' names are known only after the import.
        unread = self.expected.read()
        try:
            self._torch = self.launcher.ready()
            options.check_devices(self.torch.devices)
            self.scheduler = Scheduler(self.launcher, room=options.room, timeout=2 * options.limit)
            if self._gathering is not None:
                self._gathering.wait(self.scheduler, self.launcher, self._torch)
                self.scheduler.fleet.cpu_ranks = self._ranks_per_node()
            device_search.search(
                self.scheduler, self.torch, options, self._cell_name(), self._found
            )
            self.notes += self._found.broken
            if unread is not None:
                raise unread
            self.listed = CaseList(self.torch, self.cells, options)
            self._redactor.spare(self._names())
            self.expected.assign(self.torch, self.cells)
            spools = self.launcher.spools
            pairs_of = self.scheduler.fleet if options.each_pair else None
            self.course = Course(
                self.torch,
                self.cells,
                options.limit,
                spools,
                options.placements,
                pairs_of,
                options.largest,
                self.scheduler.pools,
            )
        except (BadRequest, StartError) as error:
            # The output of a failed import may contain secrets.
            message, detail = self._redactor.text(str(error)), self._redactor.text(error.detail)
            raise BadRequest(message, detail) from None

    def _ranks_per_node(self) -> int:
        """How many ranks a node has on the CPU, so that the largest world fills all nodes."""
        assert self.scheduler is not None
        asked = self.options.world_sizes or DEFAULT_WORLD_SIZES
        sizes: list[int] = [*asked, *named_sizes(self.options)]
        return -(-max(sizes) // len(self.scheduler.fleet.takers))

    def leave_red(self, error: BadRequest) -> None:
        """Write an error into the XML of every requested cell, after :meth:`ready` failed."""
        self._reports.leave_red(self._cell_name(), self._version(), self._asked_for(), error)

    def _names(self) -> Iterator[str]:
        """Words that must not be redacted: the names by which results are known."""
        yield from (status.value for status in Status)
        yield from (*selection.SELECTIONS, self._cell_name(), self.torch.torch)
        families = self.torch.families
        for cell in self.cells:
            yield from (cell.device, cell.name, cell.found.backend)
            for case in cell.cases:
                yield from (case.id, *map(str, case.facts.values()), families[case.scenario])

    def _asked_for(self) -> list[str]:
        """The names of all requested cells, whether their device was found or not."""
        found = {cell.device: cell.name for cell in self.cells}
        shared = self.options.sharing is not None
        others = {
            device: cell_name(
                device,
                shared=shared and device != "cpu",
                arithmetic=self.options.arithmetic,
                marks=self.options.marks,
            )
            for device in self.options.named
        }
        return list({**others, **found}.values()) or ["cpu"]

    def _version(self) -> str:
        return "unknown" if self._torch is None else self._torch.torch

    def _cell_name(self) -> str:
        return self.options.cell or self._version()

    def header(self) -> list[str]:
        """The lines that the terminal shows before the first result."""
        return wording.header(self.torch, self.cells, self._found.broken, self._redactor)

    # -- the cases -----------------------------------------------------------------------------

    def share(self, cases: Sequence[Case]) -> list[Case]:
        """The cases that are this run's share; all of them without ``--shard``."""
        shard, kept = self.options.shard, []
        for cell in self.cells:
            own = [case for case in cases if case.device == cell.device]
            if shard is not None:
                self._every[cell.device] = [case.id for case in own]
                side, _ = paths(self.options.report_dir, cell.torch, cell.name)
                own = shares.take(own, shard, shares.known_seconds(side))
                every = len(self._every[cell.device])
                self.notes.append(f"{cell.name}: share {shard} has {len(own)} of {every} cases")
            kept += own
        return kept

    def declare(
        self, cases: Iterable[Case], deselected: int = 0, *, ahead: Sequence[Case] | None = None
    ) -> None:
        """Declare the cases of this run, and open each cell's side file.

        ``ahead`` are the cases to begin before they are asked for; None for all.
        Raises :class:`BadRequest` if another run is writing the side file of a cell.
        """
        assert self.launcher is not None
        assert self.scheduler is not None
        declared = list(cases)
        queue = Ahead(self.scheduler, declared if ahead is None else ahead, self._job)
        queue.prepare()
        facts = self._facts(deselected)
        for cell in self.cells:
            known = len(cell.cases)
            cell.cases = [case for case in declared if case.device == cell.device]
            every = self._every.get(cell.device, [case.id for case in cell.cases])
            part = self.options.part or len(every) < known
            path = self._reports.begin(cell, self.torch, facts, every, part=part)
            self.launcher.journal(str(path.absolute()))
        self._resumed = {case for case in declared if case.id in self.course.cell(case).outcomes}
        queue.cases = [case for case in queue.cases if case not in self._resumed]
        self._queue = queue

    def _facts(self, deselected: int) -> dict[str, Any]:
        """What the XML says of the run, in every cell."""
        options = self.options
        return {
            "deselected": deselected,
            "expectations": self.expected.files or "none",
            "not_usable": "; ".join(self._found.broken) or "none",
            **({} if options.perturb is None else {"perturb": options.perturb}),
            **self._node_facts(),
            **({} if options.shuffle is None else {"shuffle": options.shuffle}),
        }

    def _node_facts(self) -> dict[str, Any]:
        """The nodes of a run over several."""
        if self.scheduler is None or self.options.nodes is None:
            return {}
        fleet = self.scheduler.fleet
        taking = fleet.names(sorted(fleet.takers))
        placement = "each pair" if self.options.each_pair else self.options.placements
        return {"nodes": taking, "placement": placement}

    def outcome(self, case: Case) -> Outcome:
        """Wait for the outcome of a case; later cases run at the same time if there is room."""
        cell = self.course.cell(case)
        if self._rounds is not None and not self._rounds.made:
            self._make_rounds(self._rounds)
        if case in self._resumed or (self._rounds is not None and case.id in cell.outcomes):
            return cell.outcomes[case.id]
        return self._await(case)

    def _make_rounds(self, rounds: Rounds) -> None:
        """Make all rounds; afterwards, the cells have one outcome of each case."""
        assert self.scheduler is not None
        declared, began = list(self._queue.cases), time.monotonic()
        try:
            for number in rounds:
                cases = rounds.plan.order(declared, number)
                self._queue = Ahead(self.scheduler, cases, self._job)
                for case in cases:
                    self._await(case)
                # The next round has other data, so nobody asks for these runs again.
                self.scheduler.forget("oracle", "reference")
                minutes = (time.monotonic() - began) / 60
                failed = len(rounds.failed())
                self.tell(
                    f"round {number}: {len(declared)} cases, failed so far: {failed}; {minutes:.1f} min"
                )
                if self.ended:
                    break
        finally:
            # The side file has the first outcomes and the first failures; now it gets the counts.
            for cell in self.cells:
                for name, outcome in cell.outcomes.items():
                    if cell.journal is not None:
                        cell.journal.add(name, outcome)

    def _await(self, case: Case) -> Outcome:
        try:
            return self._queue.outcome(case)
        except Exception as error:
            # The error costs this case, never the ones after it.
            return self._fault(case, error)

    def _fault(self, case: Case, error: Exception) -> Outcome:
        """The outcome of a case in which the harness itself failed; the other cases go on."""
        trace = "".join(traceback.format_exception(error))
        outcome = Outcome(
            Status.ERROR, f"internal error in distparity: {type(error).__name__}: {error}", trace
        )
        if isinstance(error, StartError):
            outcome = Outcome(Status.ERROR, str(error), error.detail)
        elif isinstance(error, TooLarge):
            outcome = Outcome(Status.ERROR, f"the verdict failed: {error}", trace)
        if self._rounds is not None or case.id not in self.course.cell(case).outcomes:
            self._keep(case, outcome)
        return outcome

    @property
    def ended(self) -> str:
        """Why no further case can run, in one line; empty if they can."""
        error = None if self.scheduler is None else self.scheduler.ended
        return "" if error is None else self._redactor.text(str(error)).splitlines()[0]

    def _job(self, case: Case) -> Job[Outcome]:
        entry = self.expected.of(case)
        if entry is not None and entry.not_run:
            return self._keep(case, self.course.out_of_reach(case) or entry.spared())
        if self._rounds is None or entry is not None:
            # What an expectation says of numbers, it says of this data.
            outcome = yield from self.course.job(case)
        else:
            seed = self._rounds.plan.data(self._rounds.number)
            # With other data the scenario need not be evidence, and its errors still count.
            outcome = yield from self.course.job(case, seed=seed, alive=False)
        outcome = outcome if entry is None else entry.judge(outcome)
        if self.options.retry_failed and outcome.status in _WORTH_ANOTHER:
            outcome = _both(outcome, (yield from self.course.job(case, fresh=True)))
        return self._keep(case, outcome)

    def _keep(self, case: Case, outcome: Outcome) -> Outcome:
        cell, new = self.course.cell(case), True
        if self._rounds is not None:
            outcome, new = self._rounds.add(case, outcome)
        return self._reports.keep(cell, case, outcome, written=new)

    def side_by_side(
        self, todo: Sequence[T], job: Callable[[T], Job[Outcome]]
    ) -> Iterator[tuple[T, Outcome]]:
        """Run one job for each of ``todo``; yields the outcomes in order, and runs as many as fit."""
        assert self.scheduler is not None
        return self.scheduler.side_by_side(todo, job)

    def learn(self, scenarios: dict[str, ScenarioFacts]) -> None:
        """Know further scenarios, for :attr:`course`."""
        known = {**self.torch.scenarios, **scenarios}
        self._torch = self.course.torch = replace(self.torch, scenarios=known)

    def rerun(self, cases: Sequence[Case]) -> str:
        """The command that runs cases of one device again."""
        replay = next(cell.found.replay for cell in self.cells if cell.device == cases[0].device)
        again = wording.rerun(cases, self.options, replay)
        # A round has other data than a run without rounds.
        number = None if self._rounds is None else self._rounds.failed_in(cases[0])
        if number is None or self._rounds is None:
            return again
        return f"{again} --shuffle={self._rounds.plan.seed} --round={number}"

    # -- after the last case -------------------------------------------------------------------

    def finish(self, reason: str) -> list[Path]:
        """Write the XML of every cell and end every process; returns the files written.

        If the report folder cannot be written, the files are in another folder, which
        :attr:`complaints` names.
        """
        facts: dict[str, Any] = {"ranks_busy": "0.00"}
        if self.scheduler is not None:
            facts["ranks_busy"] = f"{self.scheduler.busy():.2f}"
            self.complaints += [
                f"internal error in distparity; the run continued: {fault}"
                for fault in self.scheduler.faults
            ]
            self.complaints += [
                f"{name} was lost: it {why}" for name, why in self.scheduler.fleet.lost.items()
            ]
        if self._rounds is not None:
            facts["rounds"] = self._rounds.made
        written, saved = self._reports.end(self.cells, reason, facts)
        # If the XML cannot be written here, the fork server may succeed: without descriptors, for example.
        self.close(reported=saved, failed=self._red)
        return written

    def close(self, *, reported: bool = False, failed: bool = True) -> None:
        """End every process; may be called at any time, and again. Nodes hear whether the run failed."""
        if self._gathering is not None:
            self._gathering.close(failed=failed)
            self.notes += self._gathering.notes
            self._gathering = None
        if self.scheduler is not None:
            self.scheduler.close()
            self.scheduler = None
        if self.launcher is not None:
            self.launcher.close(reported=reported)
            self.launcher = None

    @property
    def _red(self) -> bool:
        flaky = self.options.allow_flaky
        red = any(cell.red(allow_flaky=flaky) for cell in self.cells)
        return red or bool(self.complaints or self.nothing_shown())

    def nothing_shown(self) -> list[str]:
        """The named devices for which every case was skipped."""
        if self.options.shard is not None:
            # A share may have such cases only; the joined cell says what was shown.
            return []
        return [
            cell.device
            for cell in self.cells
            if cell.device in self.options.named
            and cell.outcomes
            and all(outcome.status.skipped for outcome in cell.outcomes.values())
        ]


def _both(first: Outcome, second: Outcome) -> Outcome:
    """The outcome of a case that ran twice: flaky if the second run passed, else the first outcome."""
    if second.status is not Status.PASSED:
        facts = {**first.facts, "again": f"{second.status.value}: {second.message}"}
        return replace(first, facts=facts)
    message = f"{first.status.value}, then passed in a fresh world: {first.message}"
    facts = {**second.facts, "first": first.status.value}
    return replace(first, status=Status.FLAKY, message=message, facts=facts)
