"""One run of the suite: what was asked for, which cells and cases that makes, and their outcomes.

Knows nothing of pytest: the plugin asks it for cases and for what became of them.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from distparity import devices, junit
from distparity.case import Case
from distparity.censor import Censor
from distparity.evaluate import evaluate
from distparity.journal import Journal, paths
from distparity.limit import Limit
from distparity.outcome import Outcome, Status
from distparity.worlds.launcher import Launcher, StartError
from distparity.worlds.scheduler import Errand, Scheduler
from distparity.worlds.world import Answer, Failure, Spec, Task

__all__ = ["BadRequest", "Cell", "Options", "Run"]

T = TypeVar("T")

DEFAULT_WORLD_SIZES = (2, 4)
#: What the variants of a strategy run unless cases are named.
VARIANTS_RUN = ("multiple_forward",)
#: More ranks than this on one machine's CPU are a slip of the finger.
MOST_CPU_RANKS = 64
PROBE_LIMIT = 60.0
#: What may be another thing the second time; a fault of the scenario or the harness is not.
_WORTH_ANOTHER = (Status.FAILED, Status.CRASH, Status.TIMEOUT)


class BadRequest(Exception):
    """What was asked for cannot be done here. ``detail`` has the whole account, where there is one."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


@dataclass
class Options:
    """What the user asked for."""

    devices: list[str] = field(default_factory=lambda: ["auto"])
    world_sizes: list[int] = field(default_factory=list)
    limit: float = 60.0
    report_dir: Path = Path("reports")
    #: The matrix row's name for this torch; torch's own version when there is none.
    cell: str | None = None
    cases: list[str] = field(default_factory=list)
    #: Only these scenarios; all when None.
    scenarios: list[str] | None = None
    include: list[str] = field(default_factory=list)
    #: Devices by ``module:object``, besides those that are known by name.
    plugins: list[str] = field(default_factory=list)
    room: int | None = None
    #: Run a failed case again, once, in a fresh world.
    retry_failed: bool = False
    #: A case that failed and then passed does not make the run fail.
    allow_flaky: bool = False
    command: list[str] = field(default_factory=lambda: list(sys.argv))

    @property
    def named(self) -> list[str]:
        """The devices that were asked for by name."""
        return [device for device in self.devices if device != "auto"]

    def check(self) -> None:
        """Refuse what is wrong whatever this machine is; raises :class:`BadRequest`."""
        if not self.plugins:
            self.check_devices(devices.kinds())
        for size in self.world_sizes:
            if size < 1:
                raise BadRequest(f"world size {size}: a world has at least 1 rank")
        if self.limit <= 0:
            raise BadRequest(f"time limit {self.limit:g} s: it must be positive")

    def check_devices(self, known: list[str]) -> None:
        """Refuse devices that are not among the known ones; raises :class:`BadRequest`."""
        for device in self.named:
            if device not in known:
                raise BadRequest(f"unknown device {device!r}; known: auto, {', '.join(known)}")


@dataclass
class Cell:
    """This torch on one device: its facts, its cases, its side file."""

    torch: str
    device: str
    #: What the probe answered.
    found: dict[str, Any]
    cases: list[Case] = field(default_factory=list)
    journal: Journal | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)


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
        #: What was wrong with devices that nobody asked for by name.
        self.broken: list[str] = []
        self._ahead: list[Case] = []
        self._jobs: dict[Case, Any] = {}
        self._censor = Censor(os.environ)

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
        """Wait for torch, look at the devices, and list the cases; raises :class:`BadRequest`.

        When that fails, every cell that was asked for is left as an error in its XML file.
        """
        assert self.launcher is not None
        try:
            self.facts = self.launcher.ready()
            self.options.check_devices(self.facts["devices"])
            self.scheduler = Scheduler(
                self.launcher, room=self.options.room, timeout=2 * self.options.limit
            )
            self._find_devices()
            self._list_cases()
        except (BadRequest, StartError) as error:
            for device in self.options.named or ["cpu"]:
                if not any(cell.device == device for cell in self.cells):
                    self._broken(device, str(error), error.detail)
            raise BadRequest(str(error), error.detail) from None

    def _broken(self, device: str, message: str, detail: str) -> None:
        facts = {"torch": self.facts.get("torch", "unknown"), **self._surroundings()}
        name = self._cell_name()
        junit.write_broken_cell(self.options.report_dir, name, device, message, detail, facts)

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
            self.cells.append(Cell(self._cell_name(), device, found))
            self.scheduler.start_seconds[device] = found["start_seconds"]
        elif "broken" in found:
            if device in self.options.named:
                raise BadRequest(found["absent"], found["broken"])
            self.broken.append(found["absent"])
        elif device in self.options.named:
            absent = found["absent"]
            raise BadRequest(f"the device {device!r} was asked for and is not here: {absent}")

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
            cell.cases = [
                Case(scenario, strategy, size, dtype, cell.device)
                for scenario, facts in self.facts["scenarios"].items()
                if self.options.scenarios is None or scenario in self.options.scenarios
                for strategy, how in self.facts["strategies"].items()
                if self.options.cases or _by_default(scenario, facts, how)
                for size in sizes
                if _has_place(how, size)
                for dtype in facts["dtypes"]
            ]
        if self.options.cases:
            known = {case.id for cell in self.cells for case in cell.cases}
            for wanted in self.options.cases:
                if wanted not in known:
                    raise BadRequest(
                        f"unknown case {wanted!r}; --collect-only lists the known ones"
                    )
            for cell in self.cells:
                cell.cases = [case for case in cell.cases if case.id in self.options.cases]

    def files(self) -> list[Path]:
        """The files that define the scenarios."""
        return [Path(facts["file"]) for facts in self.facts["scenarios"].values()]

    def cases(self, file: Path) -> list[Case]:
        """The cases of the scenario that ``file`` defines, in all cells; empty when it is none."""
        for scenario, facts in self.facts["scenarios"].items():
            if Path(facts["file"]) == file:
                return [c for cell in self.cells for c in cell.cases if c.scenario == scenario]
        return []

    # -- the cases -----------------------------------------------------------------------------

    def declare(self, cases: Iterable[Case], deselected: int = 0) -> None:
        """Fix which cases this run is to give a result for, and open each cell's side file."""
        assert self.launcher is not None
        self._ahead = list(cases)
        for cell in self.cells:
            cell.cases = [case for case in self._ahead if case.device == cell.device]
            header = {
                "cell": {"torch": cell.torch, "device": cell.device},
                "facts": self._suite_facts(cell, deselected),
                "cases": [case.id for case in cell.cases],
                "allow_flaky": self.options.allow_flaky,
                "about": {case.id: self._about(case) for case in cell.cases},
            }
            path, xml = paths(self.options.report_dir, cell.torch, cell.device)
            cell.journal = Journal(path, xml, self._censor.all(header))
            self.launcher.journal(str(path.absolute()))

    def outcome(self, case: Case) -> Outcome:
        """What became of a case; later cases are under way meanwhile where there is room."""
        assert self.scheduler is not None
        if case not in self._jobs and case in self._ahead:
            self._ahead.remove(case)
            self._begin(case)
        while not self._jobs[case].finished:
            while self._ahead and self.scheduler.idle:
                self._begin(self._ahead.pop(0))
            self.scheduler.turn()
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
        cell = next(cell for cell in self.cells if cell.device == case.device)
        if case.id not in cell.outcomes:
            self._keep(cell, case, outcome)
        return outcome

    def _begin(self, case: Case) -> None:
        assert self.scheduler is not None
        self._jobs[case] = self.scheduler.start(self._journalled(case))

    def _journalled(self, case: Case) -> Errand[Outcome]:
        cell = next(cell for cell in self.cells if cell.device == case.device)
        outcome = yield from self.errand(case)
        if self.options.retry_failed and outcome.status in _WORTH_ANOTHER:
            outcome = _both(outcome, (yield from self.errand(case, fresh=True)))
        return self._keep(cell, case, outcome)

    def _keep(self, cell: Cell, case: Case, outcome: Outcome) -> Outcome:
        outcome = Outcome.from_json(self._censor.all(outcome.to_json()))
        cell.outcomes[case.id] = outcome
        if cell.journal is not None:
            cell.journal.add(case.id, outcome)
        return outcome

    def side_by_side(
        self, todo: Sequence[T], errand: Callable[[T], Errand[Outcome]]
    ) -> Iterator[tuple[T, Outcome]]:
        """The outcome of an errand for each of ``todo``, in order, as many at once as there is room."""
        assert self.scheduler is not None
        waiting = iter(todo)
        jobs: deque[tuple[T, Any]] = deque()
        while True:
            while self.scheduler.idle and (following := next(waiting, None)) is not None:
                jobs.append((following, self.scheduler.start(errand(following))))
            if not jobs:
                return
            one, job = jobs[0]
            if job.finished:
                jobs.popleft()
                yield one, job.value
            else:
                self.scheduler.turn()

    def errand(self, case: Case, **special: Any) -> Errand[Outcome]:
        """The case from beginning to end; ``special`` is :func:`evaluate`'s (a mutant, a seed)."""
        cell = next(cell for cell in self.cells if cell.device == case.device)
        outcome = self._out_of_reach(case, cell)
        if outcome is None:
            question = self._question(case, cell)
            travels = self.facts["strategies"][case.strategy]["reduces_in"]
            outcome = yield from evaluate(
                case, self.options.limit, question, travels=travels, **special
            )
        return outcome

    def _question(self, case: Case, cell: Cell) -> list[str] | None:
        """The features to ask torch about before the case runs; None when nothing is declared."""
        features: list[str] = self.facts["scenarios"][case.scenario]["features"]
        release = tuple(self.facts["torch_release"])
        limits = map(Limit.from_json, self.facts["strategies"][case.strategy]["limits"])
        where = (release, cell.found["type"], case.dtype, features, cell.found["no_reductions"])
        asked = any(one.applies(*where) for one in limits)
        return features if asked else None

    def declared(self, case: Case) -> str | None:
        """Why a strategy cannot do, on any device and with any torch, what a scenario asks of it."""
        features = self.facts["scenarios"][case.scenario]["features"]
        return _does_not_apply(self.facts["strategies"][case.strategy], features)

    def _out_of_reach(self, case: Case, cell: Cell) -> Outcome | None:
        why = self.declared(case)
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
        written = []
        for cell in self.cells:
            if cell.journal is not None:
                cell.journal.end(reason)
                written.append(self._write(cell.journal))
        self.close(reported=True)
        return written

    def _write(self, journal: Journal) -> Path:
        try:
            if journal.error is not None:
                raise journal.error
            return junit.write_from_journal(journal.path)
        except OSError as error:
            elsewhere = Path(tempfile.mkdtemp(prefix="distparity-reports-")) / journal.path.name
            journal.save(elsewhere)
            self.complaints.append(
                f"the reports could not be written to {journal.path.parent} ({error}); "
                f"they are in {elsewhere.parent}"
            )
            return junit.write_from_journal(elsewhere)

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
        return shlex.join(words)

    def _about(self, case: Case) -> dict[str, Any]:
        return {**case.facts, "rerun": self.rerun(case)}

    # -- facts ---------------------------------------------------------------------------------

    def _suite_facts(self, cell: Cell, deselected: int) -> dict[str, Any]:
        sizes = sorted({case.world_size for case in cell.cases})
        return {
            "torch": self.facts["torch"],
            "torch_git": self.facts["torch_git"],
            "torch_cuda": self.facts["torch_cuda"] or "none",
            "torch_hip": self.facts["torch_hip"] or "none",
            "device": cell.device,
            "device_name": cell.found["name"],
            "device_count": cell.found["count"],
            "backend": cell.found["backend"],
            "backend_version": cell.found["backend_version"],
            **{f"numerics_{name}": fact for name, fact in cell.found["numerics"].items()},
            "world_sizes": sizes,
            "declared": len(cell.cases),
            "deselected": deselected,
            **self._surroundings(),
        }

    def _surroundings(self) -> dict[str, Any]:
        return {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "command": self._censor.command(shlex.join(self.options.command)),
        }

    def header(self) -> list[str]:
        """What a reader of the terminal should know before the first result."""
        lines = [
            f"distparity: torch {self.facts['torch']} (git {self.facts['torch_git'] or 'unknown'})"
        ]
        for cell in self.cells:
            found = cell.found
            lines.append(
                f"  {cell.device}: {found['name']}, {found['count']} device(s), "
                f"{found['backend']} ({found['backend_version']})"
            )
            lines += [f"    {line}" for line in _arithmetic(found["numerics"])]
        lines += [f"  {line}" for line in self.broken]
        own = sorted(key for key in os.environ if key.startswith("DISTPARITY_"))
        lines += [self._censor.text(f"  {key}={os.environ[key]}") for key in own]
        return lines


def _by_default(scenario: str, facts: dict[str, Any], how: dict[str, Any]) -> bool:
    """Whether a strategy runs a scenario when nobody named cases."""
    if how["tier"] == "core":
        return True
    if how["needs"]:
        return all(feature in facts["features"] for feature in how["needs"])
    return scenario in VARIANTS_RUN


def _has_place(how: dict[str, Any], size: int) -> bool:
    """Whether a strategy means something in a world of this size."""
    least, multiple = int(how["least_ranks"]), int(how["ranks_multiple_of"])
    return size >= least and size % multiple == 0


def _does_not_apply(how: dict[str, Any], features: list[str]) -> str | None:
    """The sentence that says why a strategy and a scenario do not go together; None if they do."""
    lacking = [why for feature, why in how["lacks"].items() if feature in features]
    missing = [why for feature, why in how["needs"].items() if feature not in features]
    return next(iter(lacking + missing), None)


def _both(first: Outcome, second: Outcome) -> Outcome:
    """What a case is that was run twice: flaky where the second run passed, else what it was."""
    if second.status is not Status.PASSED:
        facts = {**first.facts, "again": f"{second.status.value}: {second.message}"}
        return Outcome(first.status, first.message, first.detail, facts)
    message = f"{first.status.value}, then passed in a fresh world: {first.message}"
    facts = {**second.facts, "first": first.status.value}
    return Outcome(Status.FLAKY, message, first.detail, facts)


def _arithmetic(numerics: dict[str, Any]) -> list[str]:
    """What a reader should know of a device's arithmetic: where it is not what the dtype promises."""
    lines = []
    for dtype, bits in (("float32", 23), ("float64", 52)):
        kept = numerics.get(f"matmul_{dtype}_bits", bits)
        if kept != bits:
            lines.append(f"its {dtype} matrix products keep {kept} of {bits} bits of mantissa")
    if numerics["denormals"] != "kept":
        lines.append(f"float32 denormals are {numerics['denormals']}")
    if numerics["repeatable"] != "yes":
        lines.append("the same sum or product comes out different from run to run")
    return lines


def _probe(device: str) -> Errand[dict[str, Any]]:
    task = Task(Spec("", 1, group=False), "probe", {"device": device}, limit=PROBE_LIMIT, last=True)
    done: Answer | Failure = yield task
    if isinstance(done, Failure):
        return {"absent": f"looking at {device}: {done.message}", "broken": done.detail}
    return done.results[0]
