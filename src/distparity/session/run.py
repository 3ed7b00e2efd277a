"""One run of the suite: what was asked for, which cells and cases that makes, and their outcomes.

Knows nothing of pytest: the plugin asks it for cases and for what became of them.
"""

from __future__ import annotations

import os
import platform
import shlex
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distparity import expectations
from distparity.core import refusal
from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.known_limit import ATTEMPTED, Limit
from distparity.core.outcome import Outcome, Status
from distparity.core.redact import Redactor
from distparity.results import fallback, junit_writer
from distparity.results.journal import Journal, Taken, place
from distparity.session import selection
from distparity.session.cell import GONE, Cell
from distparity.session.operation_case import operate
from distparity.session.options import Options
from distparity.session.training_case import JUDGE, Question, evaluate
from distparity.worlds.device_pool import Pool
from distparity.worlds.launcher import Launcher, StartError
from distparity.worlds.scheduler import Errand, Scheduler
from distparity.worlds.world import Answer, Failure, Spec, Task

__all__ = ["Run"]

T = TypeVar("T")

DEFAULT_WORLD_SIZES = (2, 4)
#: More ranks than this on one machine's CPU are a slip of the finger.
MOST_CPU_RANKS = 64
PROBE_LIMIT = 60.0
#: What may be another thing the second time; a fault of the scenario or the harness is not.
_WORTH_ANOTHER = (Status.FAILED, Status.CRASH, Status.TIMEOUT)


class Run:
    """From options to outcomes. Call :meth:`start`, :meth:`cells`, :meth:`declare`, then
    :meth:`outcome` for each case in order, and at last :meth:`finish`.
    """

    def __init__(self, options: Options) -> None:
        options.check()
        self.options = options
        self.launcher: Launcher | None = None
        self.scheduler: Scheduler | None = None
        self.facts: dict[str, Any] = {}
        self.cells: list[Cell] = []
        #: What went wrong with the run itself; it is no success then.
        self.complaints: list[str] = []
        #: What a reader of the terminal should know besides.
        self.notes: list[str] = []
        #: What was wrong with devices that nobody asked for by name.
        self.broken: list[str] = []
        self.expected = expectations.Expectations()
        self._entries: dict[Case, expectations.Entry] = {}
        self._by_file: dict[Path, list[Case]] = {}
        self._folders: set[Path] = set()
        self._ahead: list[Case] = []
        self._jobs: dict[Case, Any] = {}
        self._redactor = Redactor(os.environ)

    # -- before the first case -----------------------------------------------------------------

    def start(self) -> None:
        """Begin to import torch, in another process; returns at once."""
        try:
            self.options.report_dir.mkdir(parents=True, exist_ok=True)
            probe = self.options.report_dir / f".distparity-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise BadRequest(
                f"cannot write reports to {self.options.report_dir}: {error}"
            ) from None
        self.launcher = Launcher(self.options.include, self.options.plugins)

    def ready(self) -> None:
        """Wait for torch, look at the devices, and list the cases; raises :class:`BadRequest`."""
        assert self.launcher is not None
        # While torch is imported. An error in them is one of the cells, whose names come with torch.
        unread = self._read_expectations()
        try:
            self.facts = self.launcher.ready()
            self.options.check_devices(self.facts["devices"])
            self.scheduler = Scheduler(
                self.launcher, room=self.options.room, timeout=2 * self.options.limit
            )
            self._find_devices()
            if unread is not None:
                raise unread
            self._list_cases()
            self._redactor.spare(self._names())
            self._expect()
        except (BadRequest, StartError) as error:
            # What could not be imported may have said what it knows.
            message, detail = self._redactor.text(str(error)), self._redactor.text(error.detail)
            raise BadRequest(message, detail) from None

    def leave_red(self, error: BadRequest) -> None:
        """Leave every cell that was asked for as an error in its XML file: :meth:`ready` failed."""
        for name in self._asked_for():
            try:
                self._broken(name, str(error), error.detail)
            except Taken as taken:
                error.detail = f"{error.detail}\n{taken}".strip()

    def _asked_for(self) -> list[str]:
        """The names of all cells that were asked for: of those that were found, and of the others."""
        found = {cell.device: cell.name for cell in self.cells}
        shared = self.options.sharing is not None
        others = {
            device: f"{device}-shared" if shared and device != "cpu" else device
            for device in self.options.named
        }
        return list({**others, **found}.values()) or ["cpu"]

    def _broken(self, device: str, message: str, detail: str) -> None:
        facts = {"torch": self.facts.get("torch", "unknown"), **self._surroundings()}
        name = self._cell_name()
        junit_writer.write_broken_cell(
            self.options.report_dir,
            name,
            device,
            message,
            detail,
            facts,
            part=self.options.part,
        )

    def _cell_name(self) -> str:
        return self.options.cell or self.facts.get("torch") or "unknown"

    def _find_devices(self) -> None:
        assert self.scheduler is not None
        wanted = list(self.facts["devices"]) if "auto" in self.options.devices else []
        wanted += [device for device in self.options.named if device not in wanted]
        jobs = {device: self.scheduler.start(_probe(device)) for device in wanted}
        for device, job in jobs.items():
            found = self.scheduler.result(job)
            if device in self.options.named or not self._have(found):
                self._find_device(device, found)

    def _have(self, found: dict[str, Any]) -> bool:
        """Whether a device is here under another name already (``accelerator`` is any of them)."""
        types = {cell.found["type"] for cell in self.cells}
        return found["absent"] is None and found["type"] in types

    def _find_device(self, device: str, found: dict[str, Any]) -> None:
        assert self.scheduler is not None
        if found["absent"] is None:
            sharing = self._sharing(device, found)
            if sharing is None:
                return
            self.cells.append(Cell(self._cell_name(), device, found, sharing))
            self.scheduler.start_seconds[device] = found["start_seconds"]
            most = found["most_ranks"]
            if sharing or (most is not None and most <= found["count"]):
                pool = Pool(found["count"], found["exclusive"], sharing)
                self.scheduler.pools[device] = pool
        elif "broken" in found:
            if device in self.options.named:
                raise BadRequest(found["absent"], found["broken"])
            self.broken.append(found["absent"])
        elif device in self.options.named:
            absent = found["absent"]
            raise BadRequest(f"the device {device!r} was asked for and is not here: {absent}")

    def _sharing(self, device: str, found: dict[str, Any]) -> str | None:
        """By which way ranks share this device, "" for not at all, None where it is left out."""
        wanted = self.options.sharing
        if wanted is None or device == "cpu":
            return ""
        ways = list(found["sharing"])
        if (ways and wanted == "auto") or wanted in ways:
            way = str(ways[0] if wanted == "auto" else wanted)
            found.update(most_ranks=None, **found["sharing"][way])
            return way
        known = f"only by {', '.join(ways)}" if ways else "no way is known"
        refusal = f"{device}: its ranks cannot share a device: {known}"
        if device in self.options.named:
            raise BadRequest(refusal)
        self.broken.append(refusal)
        return None

    def _list_cases(self) -> None:
        sizes = self.options.world_sizes or list(DEFAULT_WORLD_SIZES)
        for cell in self.cells:
            most = cell.found["most_ranks"]
            bound = MOST_CPU_RANKS if most is None else most
            for size in self.options.world_sizes:
                if size > bound:
                    raise BadRequest(
                        f"world size {size}: {cell.device} takes at most {bound} ranks here"
                    )
            # A case that is asked for by name may be any.
            select = "full" if self.options.cases else self.options.select
            only = self.options.scenarios
            cell.cases = selection.cases(select, self.facts, cell.device, sizes, only)
        if self.options.cases:
            known = {case.id for cell in self.cells for case in cell.cases}
            for wanted in self.options.cases:
                if wanted not in known:
                    raise BadRequest(
                        f"unknown case {wanted!r}; --collect-only lists the known ones"
                    )
            for cell in self.cells:
                cell.cases = [case for case in cell.cases if case.id in self.options.cases]
        self._index()

    def _names(self) -> Iterator[str]:
        """What results are known by."""
        yield from (status.value for status in Status)
        yield from (*selection.SELECTIONS, self._cell_name(), self.facts["torch"])
        for cell in self.cells:
            yield from (cell.device, cell.name, str(cell.found["backend"]))
            for case in cell.cases:
                yield from (case.id, *map(str, case.facts.values()), self.families[case.scenario])

    def _index(self) -> None:
        defined = {**self.facts["scenarios"], **self.facts["operations"]}
        files = {name: Path(facts["file"]) for name, facts in defined.items()}
        for cell in self.cells:
            for case in cell.cases:
                self._by_file.setdefault(files[case.scenario], []).append(case)
        self._folders = {folder for file in self._by_file for folder in file.parents}

    def _read_expectations(self) -> BadRequest | None:
        """Read what is expected to fail; returns what is wrong with it."""
        shipped = [expectations.SHIPPED] if self.options.known_defects else []
        try:
            self.expected = expectations.load([*shipped, *self.options.expectations])
        except expectations.Wrong as error:
            return BadRequest(str(error))
        return None

    def _expect(self) -> None:
        """Find the cases that are expected to fail; raises :class:`BadRequest`."""
        types = [cell.found["type"] for cell in self.cells]
        try:
            expectations.check(self.expected.entries, expectations.Names.of(self.facts, types))
            for cell in self.cells:
                self._entries |= self._expect_of(cell)
        except expectations.Wrong as error:
            raise BadRequest(str(error)) from None

    def fails(self, case: Case) -> bool:
        """Whether a case is expected to fail here: what it shows is another's fault."""
        return case in self._entries

    def _expect_of(self, cell: Cell) -> dict[Case, expectations.Entry]:
        # A world of any size can be asked for: an entry that names one does not miss its cases.
        named = [entry.world_sizes for entry in self.expected.entries]
        sizes = sorted({*DEFAULT_WORLD_SIZES, *self.options.world_sizes}.union(*named))
        if cell.found["most_ranks"] is None:
            sizes = [size for size in sizes if size <= MOST_CPU_RANKS]
        every = selection.cases("full", self.facts, cell.device, sizes)
        names = (cell.device, cell.found["type"])
        here = expectations.Surroundings(self.facts["torch"], names, self._cell_facts(cell))
        entries = expectations.assign(self.expected.entries, here, every)
        return {case: entries[case.id] for case in every if case.id in entries}

    def files(self) -> list[Path]:
        """The files that define the scenarios and the operations."""
        defined = {**self.facts["scenarios"], **self.facts["operations"]}
        return [Path(facts["file"]) for facts in defined.values()]

    def cases(self, file: Path) -> list[Case]:
        """The cases of the scenario that ``file`` defines, in all cells; empty when it is none."""
        return self._by_file.get(file, [])

    def leads_to_cases(self, path: Path) -> bool:
        """Whether ``path`` defines a scenario that has cases here, or is a folder above one."""
        return path in self._by_file or path in self._folders

    # -- the cases -----------------------------------------------------------------------------

    def declare(self, cases: Iterable[Case], deselected: int = 0) -> None:
        """Fix which cases this run is to give a result for, and open each cell's side file.

        Raises :class:`BadRequest` where another run is writing that of a cell.
        """
        assert self.launcher is not None
        self._ahead = list(cases)
        self._prepare()
        for cell in self.cells:
            known = len(cell.cases)
            cell.cases = [case for case in self._ahead if case.device == cell.device]
            part = self.options.part or len(cell.cases) < known
            header = {
                "part": part,
                "cell": {"torch": cell.torch, "device": cell.name},
                "facts": self._suite_facts(cell, deselected),
                "cases": [case.id for case in cell.cases],
                "allow_flaky": self.options.allow_flaky,
                "about": {case.id: self._about(case) for case in cell.cases},
            }
            folder = self.options.report_dir
            path, xml = place(folder, cell.torch, cell.name, part=part)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                cell.journal = Journal(path, xml, self._redactor.all(header))
            except Taken as taken:
                raise BadRequest(f"{taken}; give this run another --report-dir or --cell") from None
            if path.parent != folder:
                whole = folder / xml.name
                self.notes.append(f"{whole} has more cases than this run had, and stays as it is")
            self.launcher.journal(str(path.absolute()))

    def _prepare(self) -> None:
        """Have ranks start for the first case; its oracle, which comes first, takes no longer."""
        assert self.scheduler is not None
        if self._ahead:
            first = self._ahead[0]
            self.scheduler.prepare(JUDGE)
            self.scheduler.prepare(Spec(first.device, first.world_size))

    def outcome(self, case: Case) -> Outcome:
        """What became of a case; later cases are under way meanwhile where there is room."""
        assert self.scheduler is not None
        if case not in self._jobs and case in self._ahead:
            self._ahead.remove(case)
            self._begin(case)
        while not self._jobs[case].finished:
            while self._ahead and self.scheduler.idle:
                self._begin(self._ahead.pop(0))
            try:
                self.scheduler.turn()
            except Exception as error:
                # One case is lost to it, never those to come.
                return self._fault(case, error)
        if self._jobs[case].error is not None:
            return self._fault(case, self._jobs[case].error)
        found = self._jobs[case].value
        assert isinstance(found, Outcome)
        return found

    def _fault(self, case: Case, error: Exception) -> Outcome:
        """The harness itself failed at a case: its result is that, and the others go on."""
        trace = "".join(traceback.format_exception(error))
        outcome = Outcome(
            Status.ERROR, f"distparity failed: {type(error).__name__}: {error}", trace
        )
        if isinstance(error, StartError):
            outcome = Outcome(Status.ERROR, str(error), error.detail)
        cell = next(cell for cell in self.cells if cell.device == case.device)
        if case.id not in cell.outcomes:
            self._keep(cell, case, outcome)
        return outcome

    @property
    def ended(self) -> str:
        """Why no further case can run, in one line; empty where they can."""
        error = None if self.scheduler is None else self.scheduler.ended
        return "" if error is None else self._redactor.text(str(error)).splitlines()[0]

    def _begin(self, case: Case) -> None:
        assert self.scheduler is not None
        self._jobs[case] = self.scheduler.start(self._journalled(case))

    def _journalled(self, case: Case) -> Errand[Outcome]:
        cell = next(cell for cell in self.cells if cell.device == case.device)
        entry = self._entries.get(case)
        if entry is not None and entry.not_run:
            return self._keep(cell, case, self._out_of_reach(case, cell) or entry.spared())
        outcome = yield from self.errand(case)
        outcome = outcome if entry is None else entry.judge(outcome)
        if self.options.retry_failed and outcome.status in _WORTH_ANOTHER:
            outcome = _both(outcome, (yield from self.errand(case, fresh=True)))
        return self._keep(cell, case, outcome)

    def _keep(self, cell: Cell, case: Case, outcome: Outcome) -> Outcome:
        outcome = Outcome.from_json(self._redactor.all(outcome.to_json()))
        cell.outcomes[case.id] = outcome
        if cell.journal is not None:
            cell.journal.add(case.id, outcome)
        return outcome

    def side_by_side(
        self, todo: Sequence[T], errand: Callable[[T], Errand[Outcome]]
    ) -> Iterator[tuple[T, Outcome]]:
        """The outcome of an errand for each of ``todo``, in order, as many at once as there is room."""
        assert self.scheduler is not None
        return self.scheduler.side_by_side(todo, errand)

    def errand(self, case: Case, **special: Any) -> Errand[Outcome]:
        """The case from beginning to end; ``special`` is :func:`evaluate`'s (a mutant, a seed)."""
        cell = next(cell for cell in self.cells if cell.device == case.device)
        outcome = self._out_of_reach(case, cell)
        if outcome is None and case.scenario in self.facts["operations"]:
            outcome = yield from operate(case, self.options.limit, cell.found, **special)
            return self._refused(outcome, cell.found["refuses"])
        if outcome is None:
            question = self._question(case, cell)
            reduce_dtype = self.reduce_dtype(case)
            multiplies = self.facts["strategies"][case.strategy]["multiplies"]
            outcome = yield from evaluate(
                case,
                self.options.limit,
                question,
                resume_world_size=self.facts["strategies"][case.strategy]["resume_world_size"],
                reduce_dtype=reduce_dtype,
                multiplies=multiplies,
                **special,
            )
            outcome = self._refused(outcome, cell.found["refuses"])
        return outcome

    def reduce_dtype(self, case: Case) -> str | None:
        """The dtype in which gradients travel between ranks, where it is not the case's own."""
        asked = self.facts["scenarios"][case.scenario]["reduce_dtype"]
        found = self.facts["strategies"][case.strategy]["reduce_dtype"] or asked
        return None if found in (None, case.dtype) else str(found)

    def _refused(self, outcome: Outcome, refusals: dict[str, str]) -> Outcome:
        """What a case is in which the device refused something, in words that it has declared."""
        origin = outcome.facts.get("raised_by", "")
        fact = refusal.fact_of(refusals.items(), outcome.message, origin)
        if fact is None:
            return outcome
        said = f"{fact}: torch {self.facts['torch']} says {outcome.message}"
        return Outcome(Status.NOT_SUPPORTED, said, outcome.detail, outcome.facts)

    def _question(self, case: Case, cell: Cell) -> Question | None:
        """What to ask torch about before the case runs; None when nothing is declared."""
        scenario = self.facts["scenarios"][case.scenario]
        features: list[str] = scenario["features"]
        release = tuple(self.facts["torch_release"])
        limits = map(Limit.from_json, self.facts["strategies"][case.strategy]["limits"])
        where = (release, cell.found["type"], case.dtype, features, cell.found["no_reductions"])
        asked = [one.feature for one in limits if one.applies(*where)]
        if not asked:
            return None
        # What is special about the scenario itself can only be asked by training it.
        own = any(feature not in (None, *ATTEMPTED) for feature in asked)
        return Question(sorted({f for f in asked if f is not None}), case.scenario if own else None)

    def _not_together(self, case: Case) -> str | None:
        """Why the scenario means nothing under the strategy; None where it means something."""
        if case.scenario in self.facts["operations"]:
            return None
        what = self.facts["scenarios"][case.scenario]
        return selection.declared(what, self.facts["strategies"][case.strategy])

    def _out_of_reach(self, case: Case, cell: Cell) -> Outcome | None:
        why = self._not_together(case)
        if why is not None:
            return Outcome(Status.NOT_SUPPORTED, f"{case.strategy}: {why}", facts=case.facts)
        most = cell.found["most_ranks"]
        if most is not None and case.world_size > most:
            message = (
                f"{case.device}: device_count() is {most}; {case.world_size} ranks need as many"
            )
            return Outcome(Status.NOT_AVAILABLE, message, facts=case.facts)
        if case.dtype in cell.found["lacks"]:
            return Outcome(Status.NOT_SUPPORTED, cell.found["lacks"][case.dtype], facts=case.facts)
        return None

    # -- after the last ------------------------------------------------------------------------

    def finish(self, reason: str) -> list[Path]:
        """Write the XML of every cell and end every process; returns the files written.

        Where the report folder takes no more, they are in another one, and :attr:`complaints` says
        so.
        """
        written: list[Path] = []
        busy = 0.0 if self.scheduler is None else self.scheduler.busy()
        if self.scheduler is not None:
            self.complaints += [
                f"distparity failed, and went on: {fault}" for fault in self.scheduler.faults
            ]
        for cell in self.cells:
            if cell.journal is not None:
                cell.journal.end(reason, {"ranks_busy": f"{busy:.2f}"})
                path, complaint = fallback.write(cell.journal)
                written += [path] if path else []
                self.complaints += _disagreement(cell, path) if path else []
                self.complaints += [complaint] if complaint else []
        self.close(reported=True)
        return written

    def close(self, *, reported: bool = False) -> None:
        """End every process; may be called at any time, and again."""
        if self.scheduler is not None:
            self.scheduler.close()
            self.scheduler = None
        if self.launcher is not None:
            self.launcher.close(reported=reported)
            self.launcher = None

    def nothing_shown(self) -> list[str]:
        """The devices that were asked for by name and for which every case was skipped."""
        return [
            cell.device
            for cell in self.cells
            if cell.device in self.options.named
            and cell.outcomes
            and all(outcome.status.skipped for outcome in cell.outcomes.values())
        ]

    def rerun(self, case: Case) -> str:
        """The command that runs one case again."""
        words = ["distparity", "run", "--device", case.device, "--case", case.id]
        if case.world_size not in DEFAULT_WORLD_SIZES:
            words += ["--world-size", str(case.world_size)]
        for name in self.options.include:
            words += ["--include", name]
        for name in self.options.plugins:
            words += ["--device-plugin", name]
        if self.options.sharing is not None and case.device != "cpu":
            words += [f"--share-devices={self.options.sharing}"]
        for path in self.options.expectations:
            words += ["--expectations", str(path)]
        if not self.options.known_defects:
            words.append("--no-known-defects")
        return shlex.join(words)

    def _about(self, case: Case) -> dict[str, Any]:
        family = self.families[case.scenario]
        return {**case.facts, "family": family, "rerun": self.rerun(case)}

    @property
    def families(self) -> dict[str, str]:
        """The family of every scenario."""
        every = {**self.facts["scenarios"], **self.facts["operations"]}
        return {scenario: what["family"] for scenario, what in every.items()}

    # -- facts ---------------------------------------------------------------------------------

    def _suite_facts(self, cell: Cell, deselected: int) -> dict[str, Any]:
        sizes = sorted({case.world_size for case in cell.cases})
        return {
            **self._cell_facts(cell),
            "world_sizes": sizes,
            "selection": self.options.select,
            "declared": len(cell.cases),
            "deselected": deselected,
            "expectations": self.expected.files or "none",
            **self._surroundings(),
        }

    def _cell_facts(self, cell: Cell) -> dict[str, Any]:
        """What the cell is, whatever of it is run."""
        return {
            "torch": self.facts["torch"],
            "torch_git": self.facts["torch_git"],
            "torch_cuda": self.facts["torch_cuda"] or "none",
            "torch_hip": self.facts["torch_hip"] or "none",
            "device": cell.name,
            "shared_devices": f"yes, by {cell.sharing}" if cell.sharing else "no",
            "device_name": cell.found["name"],
            "device_count": cell.found["count"],
            "backend": cell.found["backend"],
            "backend_version": cell.found["backend_version"],
            **{f"numerics_{name}": fact for name, fact in cell.found["numerics"].items()},
        }

    def _surroundings(self) -> dict[str, Any]:
        return {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "command": self._redactor.command(shlex.join(self.options.command)),
        }

    def header(self) -> list[str]:
        """What a reader of the terminal should know before the first result."""
        lines = [
            f"distparity: torch {self.facts['torch']} (git {self.facts['torch_git'] or 'unknown'})"
        ]
        for cell in self.cells:
            found = cell.found
            lines.append(
                f"  {cell.name}: {found['name']}, {found['count']} device(s), "
                f"{found['backend']} ({found['backend_version']})"
            )
            if cell.sharing:
                lines.append("    all ranks of a world share one device: no evidence for several")
            lines += [f"    {line}" for line in _arithmetic(found["numerics"])]
        lines += [f"  {line}" for line in self.broken]
        own = sorted(key for key in os.environ if key.startswith("DISTPARITY_"))
        lines += [self._redactor.text(f"  {key}={os.environ[key]}") for key in own]
        return lines


def _disagreement(cell: Cell, xml: Path) -> list[str]:
    """What the XML says otherwise than the terminal, in words."""
    there = junit_writer.statuses(xml)
    here = {case.id: cell.outcomes.get(case.id, GONE).status.value for case in cell.cases}
    differ = sorted(case for case in {*there, *here} if there.get(case) != here.get(case))
    said = [f"{case} is {there.get(case)} there, and {here.get(case)} here" for case in differ[:5]]
    return [f"{xml} and this terminal disagree: {'; '.join(said)}"] if said else []


def _both(first: Outcome, second: Outcome) -> Outcome:
    """What a case is that was run twice: flaky where the second run passed, else what it was."""
    if second.status is not Status.PASSED:
        facts = {**first.facts, "again": f"{second.status.value}: {second.message}"}
        return Outcome(first.status, first.message, first.detail, facts)
    message = f"{first.status.value}, then passed in a fresh world: {first.message}"
    facts = {**second.facts, "first": first.status.value}
    return Outcome(Status.FLAKY, message, first.detail, facts)


def _arithmetic(numerics: dict[str, Any]) -> list[str]:
    """A device's arithmetic, in one process: where it is not what the dtype promises, or that it is."""
    lines = []
    for dtype, bits in (("float32", 23), ("float64", 52)):
        kept = numerics.get(f"matmul_{dtype}_bits", bits)
        if kept != bits:
            lines.append(f"its {dtype} matrix products keep {kept} of {bits} bits of mantissa")
    if numerics["denormals"] != "kept":
        lines.append(f"float32 denormals are {numerics['denormals']}")
    if numerics["repeatable"] != "yes":
        lines.append("the same sum or product comes out different from run to run")
    promised = "products in full precision, denormals kept, the same every time"
    return lines or [f"its arithmetic: {promised}"]


def _probe(device: str) -> Errand[dict[str, Any]]:
    task = Task(Spec("", 1, group=False), "probe", {"device": device}, limit=PROBE_LIMIT, last=True)
    done: Answer | Failure = yield task
    if isinstance(done, Failure):
        return {"absent": f"looking at {device}: {done.message}", "broken": done.detail}
    return done.results[0]
