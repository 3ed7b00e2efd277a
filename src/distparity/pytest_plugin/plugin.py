"""The pytest plugin: it declares options, collects cases and reports outcomes, nothing else."""

from __future__ import annotations

import random
import sys
from collections.abc import Generator, Iterable
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.near import near, unknown
from distparity.core.torch_facts import TorchFacts
from distparity.pytest_plugin import activate, matrix_view, summary
from distparity.pytest_plugin.item import CaseItem, timed
from distparity.pytest_plugin.progress import Progress
from distparity.session import arguments
from distparity.session.cell import Cell
from distparity.session.options import Options
from distparity.session.run import Run

PACKAGE = Path(__file__).parents[1]
RUN = pytest.StashKey[Run]()
#: Seconds beyond the time limit of a case, which the harness enforces: for torch's import, a world's
#: start, the oracle and the verdict. pytest-timeout is only a safety net for the harness.
GUARD = 300.0
#: Options of other plug-ins that would say what did not happen: destination, name, the value with
#: which nothing is asked for, and what to use.
INSTEAD = (
    ("reruns", "--reruns", 0, "a case runs in ranks of its own; use --retry-failed"),
    ("timeout", "--timeout", 0, "it ends no rank; use --case-timeout SECONDS"),
    ("count", "--count", 1, "a case does not become several; run the command again"),
)
#: The markers for ``-m``.
MARKERS = (
    "family(name): the folder of the case's scenario; -m 'family(name=\"layers\")'",
    "core: by default, the strategy runs every scenario",
    "variant: the strategy is a core strategy with other settings",
    "anchor: by default, every strategy runs the scenario",
    "slow: the scenario is only in the selection full",
    "large: the scenario is only in the selection large",
    "ordered: the strategy is only in the selection order",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("distparity", "distributed training compared with one process")
    arguments.declare(group.addoption, *arguments.flags())
    # ``activate`` declares it in every run; this is for runs without automatically loaded plugins.
    activate.declare(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "timeout(seconds): from pytest-timeout, the last safety net of the harness"
    )
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    if config.option.help or getattr(config.option, "version", 0):
        return
    if hasattr(config, "workerinput") or getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("distparity runs worlds in parallel by itself: remove -n (xdist)")
    for name, option, idle, instead in INSTEAD:
        if getattr(config.option, name, None) not in (None, idle):
            raise pytest.UsageError(f"{option} does nothing here: {instead}")
    try:
        run = Run(_options(config))
        run.start()
    except BadRequest as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[RUN] = run


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is not None:
        run.close()


def _options(config: pytest.Config) -> Options:
    option = config.option
    option.case = [*(option.case or []), *_named(config)]
    chosen = option.case or option.scenario or option.keyword or option.markexpr
    found = arguments.options(
        option,
        part=bool(chosen or getattr(option, "lf", False)),
        command=["pytest", *map(str, config.invocation_params.args)],
    )
    found.expectations[:0] = config.getini(activate.EXPECTATIONS)
    return found


def _named(config: pytest.Config) -> list[str]:
    """The words of the command line that name cases; the others stay, and are paths to collect.

    A path inside this package stands for itself, and not for the whole suite besides.
    """
    suite = {str(PACKAGE), "distparity"}.intersection(config.args)
    paths = [
        word for word in config.args if word in suite or Path(word.partition("::")[0]).exists()
    ]
    inside = [word for word in paths if PACKAGE in Path(word.partition("::")[0]).resolve().parents]
    cases = [word for word in config.args if word not in paths] if suite else []
    if suite:
        config.args[:] = inside or paths
    return cases


def refuse_unknown(parser: pytest.Parser, args: list[str]) -> None:
    """Name what was meant by an unknown option; one that is like none of ours is left to pytest."""
    for word in parser.parse_known_and_unknown_args(args)[1]:
        name = word.partition("=")[0]
        if name.startswith("--") and near(name, arguments.flags()):
            raise pytest.UsageError(str(unknown("option", name, arguments.flags(), listed=False)))


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    # After pytest's own preparations, during which torch is imported.
    _wait(session.config)
    # Scenarios of other packages are collected where they are installed.
    session.config.args += [
        str(path) for path in session.config.stash[RUN].listed.files.values() if _foreign(path)
    ]


def pytest_report_header(config: pytest.Config) -> list[str]:
    _wait(config)
    return config.stash[RUN].header()


def _wait(config: pytest.Config) -> None:
    """Wait until torch is imported and the devices are probed."""
    run = config.stash[RUN]
    if run.scheduler is not None:
        return
    try:
        run.ready()
    except BadRequest as error:
        # A run that only lists cases must not change existing results.
        if not config.option.collectonly:
            run.leave_red(error)
        detail = f"\n{error.detail}" if error.detail else ""
        raise pytest.UsageError(f"{error}{detail}") from None


def _foreign(path: Path) -> bool:
    return PACKAGE not in path.parents


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Most files of the package are not scenarios, and pytest would ask every plugin about each file.
    ours = PACKAGE in collection_path.parents
    return True if ours and not config.stash[RUN].listed.leads_to_cases(collection_path) else None


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    # As a plain folder: pytest would import a package's __init__, and that of the scenarios needs torch.
    return pytest.Dir.from_parent(parent, path=path) if PACKAGE in (path, *path.parents) else None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    # Files named on the command line come through pytest_pycollect_makemodule.
    return None if parent.session.isinitpath(file_path) else _scenario(file_path, parent)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Any:
    # Instead of a module, which pytest would import, and torch with it.
    return _scenario(module_path, parent)


def _scenario(path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    cases = parent.config.stash[RUN].listed.of(path)
    if not cases:
        return None
    family = parent.config.stash[RUN].torch.families[cases[0].scenario]
    # The name of a case, wherever this package is installed.
    place = "/".join(filter(None, [family, cases[0].scenario]))
    collector: ScenarioFile = ScenarioFile.from_parent(parent, path=path, nodeid=place)
    collector.cases = cases
    return collector


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # After -k and -m. The other shares' cases are not deselected: they run elsewhere.
    if config.option.shard is not None:
        mine = set(config.stash[RUN].share([i.case for i in items if isinstance(i, ParityItem)]))
        items[:] = [one for one in items if not isinstance(one, ParityItem) or one.case in mine]
    shuffle = config.stash[RUN].options.shuffle
    if shuffle is not None:
        random.Random(shuffle).shuffle(items)  # noqa: S311  nothing secret about it


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, ParityItem):
            item.config.stash[DESELECTED] = item.config.stash.get(DESELECTED, 0) + 1


DESELECTED = pytest.StashKey[int]()


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        # Another plug-in's reporter has lines of its own.
        if type(reporter).__module__ == "_pytest.terminal":
            session.config.pluginmanager.register(FullLines(reporter))
        cases = [item.case for item in session.items if isinstance(item, ParityItem)]
        try:
            session.config.stash[RUN].declare(cases, session.config.stash.get(DESELECTED, 0))
        except BadRequest as error:
            raise pytest.UsageError(str(error)) from None
        session.config.stash[RUN].tell = partial(_tell, session.config)
        if Progress.fits(sys.stdout) and session.config.get_verbosity() >= 0:
            live = LiveProgress(Progress(sys.stdout, len(cases)), session.config)
            session.config.pluginmanager.register(live)


def _tell(config: pytest.Config, line: str) -> None:
    """Write a line to the terminal while a case is running, and so pytest captures output."""
    capture = config.pluginmanager.getplugin("capturemanager")
    aside = nullcontext() if capture is None else capture.global_and_fixture_disabled()
    with aside:
        config.get_terminal_writer().line(f"\n{line}")


class FullLines:
    """Begins a scenario's line where the marks of the one before end with their line.

    pytest would write a line with nothing but a percentage first.
    """

    def __init__(self, reporter: Any) -> None:
        self.reporter = reporter
        self.writer = reporter.config.get_terminal_writer()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        name = nodeid.partition("::")[0]
        path = self.reporter.config.rootpath / name
        full = self.reporter.showfspath and not self.writer.width_of_current_line
        if full and self.reporter.currentfspath not in (None, path):
            self.reporter.currentfspath = path
            self.writer.write(f"{name} ")


class LiveProgress:
    """Shows the progress after pytest's own output, also while a case is running.

    pytest continues to write at its cursor, so the progress is removed before and shown again after.
    """

    def __init__(self, progress: Progress, config: pytest.Config) -> None:
        self.progress = progress
        self.writer = config.get_terminal_writer()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logstart(self) -> Generator[None, object, object]:
        return (yield from self._aside())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        return (yield from self._aside())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logfinish(self) -> Generator[None, object, object]:
        self.progress.done += 1
        return (yield from self._aside())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.progress.clear()

    def _aside(self) -> Generator[None, object, object]:
        self.progress.clear()
        found = yield
        self.progress.show(self.writer.width_of_current_line, self.writer.fullwidth)
        return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return timed(item, (yield), call.when)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    run = session.config.stash[RUN]
    silent = run.nothing_shown()
    if silent and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if run.options.shard is not None and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        # Of few cases, a share may have none.
        session.exitstatus = pytest.ExitCode.OK
    reasons = {2: "interrupted", 3: "internal error"}
    reason = reasons.get(int(exitstatus), "finished")
    if session.shouldstop or session.shouldfail:
        reason = f"stopped: {session.shouldstop or session.shouldfail}"
    session.config.stash[WRITTEN] = run.finish(reason)
    red = {case for cell in run.cells for case in cell.red(allow_flaky=run.options.allow_flaky)}
    if red and session.exitstatus == pytest.ExitCode.OK:
        run.complaints.append(
            f"{len(red)} cases failed in the XML although no test failed: {min(red)}"
        )
    if run.complaints and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


WRITTEN = pytest.StashKey[list[Path]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run = config.stash[RUN]
    terminalreporter.section("distparity")
    for cell in run.cells:
        terminalreporter.write_line(summary.counts(cell))
        for line in summary.sizes(cell):
            terminalreporter.write_line(line)
        if config.get_verbosity() >= 0:
            _write_matrix(config, cell)
        every = "A" in config.option.reportchars
        for line in summary.causes(cell, run.rerun, every=every):
            terminalreporter.write_line(line)
    for device in run.nothing_shown():
        terminalreporter.write_line(
            f"the run fails: every case on the named device {device} was skipped"
        )
    for complaint in [*run.notes, *run.complaints]:
        terminalreporter.write_line(complaint)
    for path in config.stash.get(WRITTEN, []):
        terminalreporter.write_line(f"wrote {path}")


def _write_matrix(config: pytest.Config, cell: Cell) -> None:
    writer = config.get_terminal_writer()
    encoding = getattr(sys.stdout, "encoding", None)
    families = config.stash[RUN].torch.families
    for line in matrix_view.matrix(cell.cases, cell.outcomes, writer.fullwidth, encoding, families):
        for text, style in line:
            writer.write(text, **{style: True} if style else {})
        writer.line()


class ScenarioFile(pytest.File):
    """The file of a scenario; its items are the scenario's cases."""

    cases: list[Case]

    def collect(self) -> Iterable[ParityItem]:
        for case in self.cases:
            yield ParityItem.from_parent(self, name=f"{case.name}-{case.device}", case=case)


class ParityItem(CaseItem):
    """One case of the suite."""

    def __init__(self, *, case: Case, **rest: Any) -> None:
        super().__init__(**rest)
        self.case = case
        self.extra_keyword_matches.update({case.id, case.scenario, case.strategy, case.dtype})
        what = self.config.stash[RUN].torch.scenarios.get(self.case.scenario)
        limit = self.config.stash[RUN].options.limit * (1 if what is None else what.patience)
        self._mark(self.config.stash[RUN].torch)
        # The first case waits for all rounds.
        guard = GUARD + 6 * limit if self.config.stash[RUN].options.rounds is None else 0
        self.add_marker(pytest.mark.timeout(guard, method="signal"))

    def _mark(self, torch: TorchFacts) -> None:
        self.add_marker(pytest.mark.family(name=torch.families[self.case.scenario]))
        what = torch.scenarios.get(self.case.scenario)
        if what is None:
            return
        self.add_marker(torch.strategies[self.case.strategy].tier)
        for name in ("anchor", "slow", "large"):
            if getattr(what, name):
                self.add_marker(name)

    @cached_property
    def location(self) -> tuple[str, int | None, str]:
        return self.nodeid.partition("::")[0], None, self.reportinfo()[2]

    def run(self) -> Run:
        return self.config.stash[RUN]

    def ended(self, why: str) -> None:
        # Report the reason once, with this case: the other cases are not tried.
        self.session.shouldfail = why
