"""Check whether a run would work here: the machine, torch, and every device step by step.

Everything that touches torch or a device happens in ranks (``devices/examination.py``): a driver
that crashes or hangs gets a line of its own, and doctor goes on.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import shlex
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from distparity.core import device_kinds
from distparity.core.case import Case
from distparity.core.outcome import Outcome, Status
from distparity.core.spool import Spools
from distparity.core.torch_facts import DeviceFacts, Probed, TorchFacts
from distparity.session import device_search, selection, wording
from distparity.session.cell import Cell
from distparity.session.course import Course
from distparity.session.expected import Expected
from distparity.session.options import Options
from distparity.worlds.launcher import Launcher, StartError
from distparity.worlds.scheduler import Job, Scheduler
from distparity.worlds.world import Failure, Spec, Task

__all__ = ["Examined", "Report", "Step", "complaint", "doctor", "lines", "of_step"]

#: Seconds for all steps of one device, in addition to those that it declares for its start.
LIMIT = device_search.PROBE_LIMIT
#: Seconds for one collective; doctor goes on after one that hangs.
COLLECTIVE_LIMIT = 30.0
#: Ways to call a collective that no strategy uses.
UNUSED = ("noncontiguous",)
#: The most lines of a traceback that the terminal shows.
MOST_LINES = 25
SMOKE_RANKS = 2
#: Open files: what one rank needs about, with the controller's end of it, and the minimum for four.
FEWEST_FILES = 128
#: GiB. A whole run on the CPU was measured at 1.3, with shared pages counted once.
LEAST_MEMORY = 1.0
#: The release date of torch 2.4.0; a machine that has lost its clock is in 1970.
BEGINNING = datetime.date(2024, 7, 24)


@dataclass
class Step:
    """One check: its answer, or its error and what to do about it."""

    name: str
    answer: str = ""
    error: str | None = None
    advice: str | None = None
    seconds: float | None = None
    #: Whether the device's own method answered, or the default; None if the check calls no method.
    own: bool | None = None
    #: The answer is wrong, which is worse than a refusal.
    wrong: bool = False
    #: A run works even if this check fails.
    optional: bool = False
    #: The traceback, or what else is known of the failure.
    detail: str = ""


@dataclass
class Examined:
    """One kind of device."""

    kind: str
    here: bool
    steps: list[Step] = field(default_factory=list)
    #: The command to run next.
    next: str = ""

    @property
    def fit(self) -> bool:
        """Whether the device is available and no required check failed."""
        return self.here and all(step.error is None or step.optional for step in self.steps)

    def answer(self, step: str) -> str:
        return next((one.answer for one in self.steps if one.name == step), "")


@dataclass
class Report:
    """All that doctor found out."""

    machine: list[Step]
    torch: list[Step]
    devices: list[Examined]
    #: The devices that a run would use: those requested, or all that are available.
    wanted: list[str]
    #: What the user asked for: the commands that doctor prints ask for the same.
    options: Options = field(default_factory=Options)
    #: On several nodes: what lies between them, and what they found themselves.
    nodes: list[Step] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """Whether a run would work."""
        fit = {one.kind for one in self.devices if one.fit}
        steps = [*self.machine, *self.torch, *self.nodes]
        sound = all(step.error is None or step.optional for step in steps)
        return sound and bool(self.wanted) and fit.issuperset(self.wanted)

    def to_json(self) -> dict[str, Any]:
        devices = [{**asdict(one), "fit": one.fit} for one in self.devices]
        found = {**asdict(self), "devices": devices, "works": self.works}
        del found["options"]
        return found


def doctor(options: Options) -> Report:
    """Examine this machine, its torch, and the devices; raises :class:`BadRequest`."""
    options.check()
    machine = _machine()
    launcher = Launcher(options.include, options.plugins, backend=options.backend)
    scheduler = None
    try:
        try:
            facts = launcher.ready()
        except StartError as error:
            step = Step("import", error=str(error), advice=_last_line(error.detail))
            return Report(machine, [step], [], options.named, options)
        options.check_devices(facts.devices)
        scheduler = Scheduler(launcher)
        ask = options.named or facts.devices
        devices = [scheduler.run(_examine(kind, options, scheduler, facts)) for kind in ask]
    finally:
        if scheduler is not None:
            scheduler.close()
        launcher.close(reported=True)
    wanted = options.named or [one.kind for one in devices if one.here]
    return Report(machine, _torch(facts), devices, wanted, options)


# -- the machine -----------------------------------------------------------------------------------


def _machine() -> list[Step]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = files != resource.RLIM_INFINITY and files < FEWEST_FILES
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0  # noqa: S108
    return [
        Step("python", f"{platform.python_version()} ({sys.executable})"),
        Step("platform", platform.platform()),
        Step("cores", f"{len(os.sched_getaffinity(0))} for this process, of {os.cpu_count()}"),
        _memory(),
        Step("shared memory", f"{shared / 2**20:.0f} MiB free in /dev/shm"),
        Step(
            "file descriptors",
            "no limit" if files == resource.RLIM_INFINITY else str(files),
            error=f"{files} is too few: a run needs {FEWEST_FILES}" if few else None,
            advice="ulimit -n 1024" if few else None,
        ),
        _tried("temporary files", _temporary, "set TMPDIR to a writable folder"),
        _tried("ports", _port, "ranks meet on 127.0.0.1: the loopback interface must be up"),
        _clock(),
    ]


def _clock() -> Step:
    """Check the clocks: time limits need a steady one; reports and expiry dates the right date."""
    steady = time.get_clock_info("monotonic")
    now = datetime.datetime.now(datetime.timezone.utc)
    answer = f"{now:%Y-%m-%d %H:%M} UTC; resolution {steady.resolution:g} s"
    if now.date() >= BEGINNING:
        return Step("clock", answer)
    error = f"the date {now:%Y-%m-%d} is before the first supported torch"
    return Step("clock", error=error, advice="set the date: reports and expectations depend on it")


def _memory() -> Step:
    try:
        words = Path("/proc/meminfo").read_text(encoding="ascii").split()
    except OSError as error:
        return Step("memory", f"unknown: {error}")
    free, total = (
        int(words[words.index(name) + 1]) / 2**20 for name in ("MemAvailable:", "MemTotal:")
    )
    step = Step("memory", f"{free:.1f} of {total:.1f} GiB available")
    if free < LEAST_MEMORY:
        step.error = f"{free:.1f} GiB is too little: a run needs {LEAST_MEMORY:g}"
        step.advice = "stop other programs, or run with --worlds 2"
    return step


def _temporary() -> str:
    with tempfile.NamedTemporaryFile(prefix="distparity-") as file:
        file.write(b"distparity")
        file.flush()
        return (
            f"{shutil.disk_usage(file.name).free / 2**30:.1f} GiB free in {tempfile.gettempdir()}"
        )


def _port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return f"port {port} on 127.0.0.1 accepts connections"


def _tried(name: str, act: Any, otherwise: str) -> Step:
    try:
        return Step(name, act())
    except OSError as error:
        return Step(name, error=f"{type(error).__name__}: {error}", advice=otherwise)


def _torch(facts: TorchFacts) -> list[Step]:
    builds = [f"CUDA {facts.cuda}"] if facts.cuda else []
    builds += [f"ROCm {facts.hip}"] if facts.hip else []
    builds += [f"XPU {facts.xpu}"] if facts.xpu else []
    off = device_kinds.autoload_off()
    return [
        Step(
            "autoload",
            off or ", ".join(device_kinds.announced()) or "no package announces a device",
        ),
        Step("torch", f"{facts.torch} (git {facts.git or 'unknown'})"),
        Step("built for", " and ".join(builds) or "the cpu, or a vendor's device"),
        _numpy(facts.numpy),
        Step("collectives", f"{', '.join(facts.collectives)} are built in"),
        Step("diagnostics", f"missing: {', '.join(facts.gone)}" if facts.gone else "complete"),
        Step("cases", f"{len(facts.scenarios)} scenarios, {len(facts.strategies)} strategies"),
    ]


def _numpy(version: str | None) -> Step:
    if version is not None:
        return Step("numpy", version)
    error = "not installed; torch needs it to send objects between ranks, as FSDP1 does"
    return Step("numpy", error=error, advice="pip install numpy")


# -- a device --------------------------------------------------------------------------------------


def _examine(kind: str, options: Options, scheduler: Scheduler, torch: TorchFacts) -> Job[Examined]:
    log = str(Path(scheduler.launcher.directory, f"examined-{kind}"))
    limit = LIMIT + (yield from device_search.patience(kind))
    what = {"device": kind, "log": log}
    done = yield Task(device_search.BARE, "examine", what, limit=limit, last=True)
    steps = _read(log, done)
    gone = next((step for step in steps if step.error is not None), None)
    if gone is not None:
        return Examined(kind, not _is_absence(gone), steps, _next(kind, options))
    found = Probed.from_json(done.results[0]).found
    assert found is not None
    sharing = _way(options, found)
    cell = Cell("", kind, found.shared(sharing) if sharing else found, sharing)
    device_search.prepare(scheduler, cell)
    most = cell.found.most_ranks
    ranks = SMOKE_RANKS if most is None else min(SMOKE_RANKS, most)
    log += "-collectives"
    smoke = yield Task(Spec(kind, ranks), "smoke", {"log": log}, limit=LIMIT, last=True)
    steps.append(_ranks(found, sharing))
    steps += _merged([_read(f"{log}.{rank}", smoke) for rank in range(ranks)])
    if ranks == SMOKE_RANKS and not isinstance(smoke, Failure):
        sizes = sorted({ranks, most or ranks})
        steps += yield from _collectives(torch, cell, sizes, options)
    return Examined(kind, here=True, steps=steps, next=_next(kind, options))


def _collectives(
    torch: TorchFacts, cell: Cell, sizes: list[int], options: Options
) -> Job[list[Step]]:
    """Every collective in every way to call it, with two ranks and with all devices, as a run does."""
    names = [name for name, what in torch.operations.items() if what.family == "collectives"]
    every = selection.operations("full", torch, cell.device, sizes, names)
    # Operations store no trajectories.
    course = Course(torch, [cell], COLLECTIVE_LIMIT, Spools(tempfile.gettempdir()))
    expected = Expected(replace(options, known_defects=True))
    expected.read()
    expected.assign(torch, [cell])
    steps = []
    for case in every:
        if case.dtype == "float32" and case.strategy not in UNUSED:
            entry = expected.of(case)
            outcome = yield from course.job(case)
            outcome = outcome if entry is None else entry.judge(outcome)
            steps.append(_of_case(case, outcome, wording.rerun([case], options, cell.found.replay)))
    return steps


def _of_case(case: Case, outcome: Outcome, rerun: str) -> Step:
    name = f"{case.world_size} ranks: {case.scenario}, {case.strategy}"
    seconds = outcome.facts.get("seconds_in_ranks")
    if outcome.status is Status.PASSED:
        return Step(name, f"correct, {outcome.facts['checks']} checks", seconds=seconds)
    if not outcome.status.bad:
        return Step(name, f"{outcome.status.value}: {outcome.message}", seconds=seconds)
    wrong = outcome.failure == "wrong numbers"
    return Step(
        name, "", outcome.message, rerun, seconds=seconds, wrong=wrong, detail=outcome.detail
    )


def _is_absence(step: Step) -> bool:
    """Whether a step failed because the device is absent, rather than broken."""
    error = step.error or ""
    missing = ("ImportError", "ModuleNotFoundError")
    return error.startswith("not available") or (step.name == "load" and error.startswith(missing))


def _way(options: Options, found: DeviceFacts) -> str:
    ways = list(found.sharing)
    if options.sharing == "auto":
        return ways[0] if ways else ""
    return options.sharing if options.sharing in ways else ""


def _ranks(found: DeviceFacts, sharing: str) -> Step:
    """How many ranks a run can have; it needs at least two."""
    most = found.most_ranks
    if sharing:
        return Step("ranks", f"any number, all on one device, by {sharing}")
    if most is None:
        return Step("ranks", "any number")
    if most >= SMOKE_RANKS:
        return Step("ranks", f"up to {most}")
    ways = ", ".join(found.sharing)
    advice = (
        f"--share-devices puts two ranks on it (by {ways})"
        if ways
        else "add another device; if each process sees only its own one, override count() and take()"
    )
    return Step(
        "ranks",
        error=f"{most} device is too few: {SMOKE_RANKS} ranks need {SMOKE_RANKS}",
        advice=advice,
    )


def _read(log: str, done: Any) -> list[Step]:
    """Read the steps that a process logged; the step in which it died has the reason."""
    steps: list[Step] = []
    begun = None
    try:
        logged = Path(log).read_text(encoding="utf-8").splitlines()
    except OSError:
        logged = []
    for line in map(json.loads, logged):
        begun = line.get("begin")
        if begun is None:
            steps.append(Step(**line))
    if begun is not None and isinstance(done, Failure):
        steps.append(Step(**begun, error=done.message))
    if isinstance(done, Failure) and not any(step.error for step in steps):
        where = "end" if steps else "start"
        steps.append(Step(where, error=done.message, advice=_last_line(done.detail)))
    return steps


def _merged(ranks: list[list[Step]]) -> list[Step]:
    """Merge the ranks' steps to one per collective: a failure of any rank, else rank 0's answer."""
    found: dict[str, Step] = {}
    for rank, steps in enumerate(ranks):
        for step in steps:
            if step.error is not None:
                step.error = f"rank {rank}: {step.error}"
                step.advice = OTHERWISE.get(step.name) or step.advice
            if step.name not in found or (step.error and not found[step.name].error):
                found[step.name] = step
    what = f"{len(ranks)} ranks" if len(ranks) > 1 else "1 rank"
    return [Step(**{**asdict(step), "name": f"{what}: {step.name}"}) for step in found.values()]


_OBJECTS = "objects use the backend for cpu: name cpu:gloo beside the device's own backend"
#: Advice for each collective that fails.
OTHERWISE = {
    "start": "check backend(), environment() and take(): no process group could be made",
    "all_reduce SUM": "fix the backend's all-reduce: DDP averages gradients with it",
    "reduce_scatter_tensor": "fix the backend's reduce-scatter: FSDP shards gradients with it",
    "all_gather_into_tensor": "fix the backend's all-gather: FSDP gathers parameters with it",
    "broadcast": "fix the backend's broadcast: DDP and checkpoints begin with it",
    "all_gather_object": _OBJECTS,
    "broadcast_object_list": _OBJECTS,
    "scatter_object_list": _OBJECTS,
    "barrier": "fix the backend's barrier",
}


def _next(kind: str, options: Options) -> str:
    case = Case("multiple_forward", "ddp", SMOKE_RANKS, "float32", kind)
    return wording.rerun([case], options, {})


def _last_line(text: str) -> str | None:
    kept = [line for line in text.splitlines() if line.strip()]
    return kept[-1].strip() if kept else None


# -- for a reader ----------------------------------------------------------------------------------


def lines(report: Report) -> list[str]:
    """Format a report: one line per fact, and below each failure what to do about it."""
    found: list[str] = []
    for step in [*report.torch, *report.machine]:
        found += of_step("", step)
    for one in report.devices:
        if not one.here and one.kind not in report.wanted:
            reason = next(step.error or "" for step in one.steps if step.error)
            reason = reason.removeprefix("not available: ").removeprefix(f"{one.kind}: ")
            found.append(f"{one.kind}: not available: {reason}")
            continue
        found.append(f"{one.kind}: {'ready' if one.fit else 'NOT READY'}")
        for step in one.steps:
            found += of_step("  ", step)
        bad = next((s for s in one.steps if s.error is not None and not s.optional), None)
        if bad is None:
            found += ["  next:", one.next]
        else:
            install = bad.advice is not None and bad.advice.startswith("install ")
            todo = bad.advice if install else f"fix {bad.name}"
            own = wording.where(one.kind, report.options)
            included = [word for name in report.options.include for word in ("--include", name)]
            again = shlex.join(["distparity", "doctor", *own, *included])
            found += [f"  next: {todo}, then:", again]
    if not report.works:
        broken = [one.kind for one in report.devices if one.kind in report.wanted and not one.fit]
        broken += [step.name for step in report.nodes if step.error is not None]
        what = ", ".join(broken) or "see above" if report.wanted else "this machine has no device"
        found.append(f"a run would not work: {what}")
    else:
        found.append(f"a run would work: {', '.join(report.wanted)}")
    return found


def complaint(report: Report) -> str:
    """What is wrong, in one line; "" if a run would work."""
    steps = [
        *report.machine,
        *report.torch,
        *(step for one in report.devices for step in one.steps),
    ]
    wanted = {one.kind for one in report.devices if one.kind in report.wanted}
    absent = [one for one in report.devices if not one.here and one.kind not in wanted]
    spared = [id(step) for one in absent for step in one.steps]
    wrong = [step for step in steps if step.error and not step.optional and id(step) not in spared]
    return "; ".join(f"{step.name}: {step.error}" for step in wrong[:3]) or (
        "" if report.works else "no device"
    )


def of_step(indent: str, step: Step) -> list[str]:
    """The lines of a step."""
    took = "" if step.seconds is None else f" ({step.seconds:.3f} s)"
    if step.error is None:
        own = "" if step.own is None else ", by the device" if step.own else ", by default"
        return [f"{indent}{step.name}: {step.answer}{own}{took}"]
    word = "no" if step.optional else "FAILED"
    told = [f"{indent}{step.name}: {word}: {step.error}{took}"]
    told += [f"{indent}  {step.advice}"] if step.advice else []
    trace = step.detail.strip().splitlines()[-MOST_LINES:]
    return [*told, *(f"{indent}    {line}" for line in trace)]
