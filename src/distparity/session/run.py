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
from distparity.results import fallback, junit_writer, pairs
from distparity.results.journal import Journal, Taken, paths, place
from distparity.session import device_search, resume, selection, shares, wording
from distparity.session.case_list import DEFAULT_WORLD_SIZES, CaseList, named_sizes
from distparity.session.cell import GONE, Cell
from distparity.session.course import Course
from distparity.session.expected import Expected
from distparity.session.gathering import Gathering
from distparity.session.options import Options
from distparity.session.rounds import Rounds
from distparity.session.training_case import JUDGE
from distparity.worlds.launcher import Launcher, StartError
from distparity.worlds.scheduler import Job, Scheduler
from distparity.worlds.world import Spec

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

    def __init__(self, options: Options) -> None:
        options.check()
        self.options = options
        self.launcher: Launcher | None = None
        self.scheduler: Scheduler | None = None
        self._gathering: Gathering | None = None
        #: What went wrong with the run itself; if there is anything, the run fails.
        self.complaints: list[str] = []
        #: What else the terminal shows at the end.
        self.notes: list[str] = []
        self._torch: TorchFacts | None = None
        self.expected = Expected(options)
        self._found = device_search.Found()
        self._ahead: list[Case] = []
        #: With ``--shard``, by device: the ids of the cases of all shares.
        self._every: dict[str, list[str]] = {}
        self._rounds = None if options.rounds is None else Rounds(options.rounds)
        #: Called with a line about every round that ended.
        self.tell: Callable[[str], None] = lambda _: None
        self._resumed: set[Case] = set()
        self._handles: dict[Case, Any] = {}
        self._redactor = Redactor(os.environ)

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
        facts = {
            "torch": self._version(),
            **wording.surroundings(self.options.command, self._redactor),
        }
        folder, cell = self.options.report_dir, self._cell_name()
        for device in self._asked_for():
            try:
                junit_writer.write_broken_cell(
                    folder, cell, device, str(error), error.detail, facts, part=self.options.part
                )
            except Taken as taken:
                error.detail = f"{error.detail}\n{taken}".strip()

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
        declared = list(cases)
        self._ahead = list(declared if ahead is None else ahead)
        self._prepare()
        for cell in self.cells:
            known = len(cell.cases)
            cell.cases = [case for case in declared if case.device == cell.device]
            every = self._every.get(cell.device, [case.id for case in cell.cases])
            part = self.options.part or len(every) < known
            shard = self.options.shard
            header: dict[str, Any] = {
                "part": part,
                "cell": {"torch": cell.torch, "device": cell.name},
                "facts": self._suite_facts(cell, deselected),
                "cases": [case.id for case in cell.cases],
                "allow_flaky": self.options.allow_flaky,
                "options": self.options.deciding,
                "about": self._about(cell),
            }
            if shard is not None:
                header["shard"] = {"index": shard.index, "count": shard.count, "of": every}
                header["facts"]["shard"] = str(shard)
            folder = self.options.report_dir
            share = "" if shard is None else str(shard)
            path, xml = place(folder, cell.torch, cell.name, part=part, share=share)
            path.parent.mkdir(parents=True, exist_ok=True)
            header = self._redactor.all(header)
            resumed = None
            begins = self.options.nodes is not None and not path.exists()
            if self.options.resume and begins:
                # A launcher starts a run again with the same words.
                self.notes.append(f"{path}: there is nothing to resume; the run begins")
            elif self.options.resume:
                cell.outcomes = resume.results(path, header)
                resumed = {"results": len(cell.outcomes), "command": header["facts"]["command"]}
                self.notes.append(f"{path}: resumed after {len(cell.outcomes)} results")
            try:
                cell.journal = Journal(path, xml, header, resumed)
            except Taken as taken:
                raise BadRequest(f"{taken}; give this run another --report-dir or --cell") from None
            if path.parent != folder:
                whole = folder / xml.name
                self.notes.append(f"{whole} is unchanged: it has more cases than this run")
            self.launcher.journal(str(path.absolute()))
        self._resumed = {case for case in declared if case.id in self.course.cell(case).outcomes}
        self._ahead = [case for case in self._ahead if case not in self._resumed]

    def _prepare(self) -> None:
        """Start the ranks of the first case while its oracle, which comes first, is trained."""
        assert self.scheduler is not None
        if self._ahead:
            first = self._ahead[0]
            self.scheduler.prepare(JUDGE)
            self.scheduler.prepare(Spec(first.device, first.world_size))

    def _about(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """What is known about each case before it runs."""
        families = self.torch.families
        return {
            case.id: {
                **case.facts,
                "family": families[case.scenario],
                "rerun": wording.rerun([case], self.options, cell.found.replay),
                **wording.sources(self.torch, case),
            }
            for case in cell.cases
        }

    def _suite_facts(self, cell: Cell, deselected: int) -> dict[str, Any]:
        return {
            **wording.cell_facts(self.torch, cell),
            "world_sizes": sorted({case.world_size for case in cell.cases}),
            "selection": self.options.select,
            "declared": len(cell.cases),
            "deselected": deselected,
            "expectations": self.expected.files or "none",
            "not_usable": "; ".join(self._found.broken) or "none",
            **({} if self.options.perturb is None else {"perturb": self.options.perturb}),
            **self._node_facts(),
            **({} if self.options.shuffle is None else {"shuffle": self.options.shuffle}),
            **wording.surroundings(self.options.command, self._redactor),
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
        declared, began = list(self._ahead), time.monotonic()
        try:
            for number in rounds:
                self._handles, self._ahead = {}, rounds.plan.order(declared, number)
                for case in list(self._ahead):
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
        assert self.scheduler is not None
        if case not in self._handles:
            if case in self._ahead:
                self._ahead.remove(case)
            self._begin(case)
        while not self._handles[case].finished:
            while self._ahead and self.scheduler.idle:
                self._begin(self._ahead.pop(0))
            try:
                self.scheduler.turn()
            except Exception as error:
                # The error costs this case, never the ones after it.
                return self._fault(case, error)
        if self._handles[case].error is not None:
            return self._fault(case, self._handles[case].error)
        found = self._handles[case].value
        assert isinstance(found, Outcome)
        return found

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

    def _begin(self, case: Case) -> None:
        assert self.scheduler is not None
        self._handles[case] = self.scheduler.start(self._journalled(case))

    def _journalled(self, case: Case) -> Job[Outcome]:
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
        outcome = Outcome.from_json(self._redactor.all(outcome.to_json()))
        cell.outcomes[case.id] = outcome
        if cell.journal is not None and new:
            cell.journal.add(case.id, outcome)
        return outcome

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
        written: list[Path] = []
        saved = True
        busy = 0.0 if self.scheduler is None else self.scheduler.busy()
        if self.scheduler is not None:
            self.complaints += [
                f"internal error in distparity; the run continued: {fault}"
                for fault in self.scheduler.faults
            ]
            self.complaints += [
                f"{name} was lost: it {why}" for name, why in self.scheduler.fleet.lost.items()
            ]
        for cell in self.cells if self.options.each_pair else []:
            self.notes += pairs.Matrix.of(
                (one.facts, one.status.bad) for one in cell.outcomes.values()
            ).lines()
        for cell in self.cells:
            if cell.journal is not None:
                made = {} if self._rounds is None else {"rounds": self._rounds.made}
                cell.journal.end(reason, {"ranks_busy": f"{busy:.2f}", **made})
                path, complaint = fallback.write(cell.journal)
                written += [path] if path else []
                saved = saved and path is not None
                self.complaints += _disagreement(cell, path) if path else []
                self.complaints += [complaint] if complaint else []
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


def _disagreement(cell: Cell, xml: Path) -> list[str]:
    """The differences between the XML and the terminal, in words."""
    there = junit_writer.statuses(xml)
    here = {case.id: cell.outcomes.get(case.id, GONE).status.value for case in cell.cases}
    differ = sorted(case for case in {*there, *here} if there.get(case) != here.get(case))
    said = [
        f"{case} is {there.get(case)} in the XML and {here.get(case)} here" for case in differ[:5]
    ]
    return [f"{xml} and this terminal disagree: {'; '.join(said)}"] if said else []


def _both(first: Outcome, second: Outcome) -> Outcome:
    """The outcome of a case that ran twice: flaky if the second run passed, else the first outcome."""
    if second.status is not Status.PASSED:
        facts = {**first.facts, "again": f"{second.status.value}: {second.message}"}
        return replace(first, facts=facts)
    message = f"{first.status.value}, then passed in a fresh world: {first.message}"
    facts = {**second.facts, "first": first.status.value}
    return replace(first, status=Status.FLAKY, message=message, facts=facts)
