"""Cases that a project declares in its own test files with ``distparity.cases``.

They are items among the project's other tests, in the project's own pytest. Their run starts after
collection, and only if some of them are selected. It is one for all test files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from distparity.core.bad_request import BadRequest
from distparity.core.case import Case
from distparity.core.own_cases import OwnCases, OwnScenario
from distparity.pytest_plugin import DEVICE, REPORTS
from distparity.pytest_plugin.item import CaseItem, timed
from distparity.session.options import Options
from distparity.session.run import Run
from distparity.session.selection import EVERY
from distparity.session.wording import OWN_DEVICE

__all__ = ["items"]

OWN = pytest.StashKey["OwnRun"]()


def items(collector: Any, name: str, declared: OwnCases) -> list[OwnItem]:
    """The items of one declaration, which the test file calls ``name``."""
    config = collector.config
    if OWN not in config.stash:
        config.stash[OWN] = OwnRun(config)
        config.pluginmanager.register(config.stash[OWN], "distparity-own")
    several = len(declared.scenarios) > 1
    found = []
    for scenario, strategy, size, dtype in declared.combinations():
        words = [*[scenario.name] * several, strategy, f"ws{size}", dtype]
        item: OwnItem = OwnItem.from_parent(collector, name=f"{name}[{'-'.join(words)}]")
        item.declared, item.scenario = declared, scenario
        item.case = Case(scenario.name, strategy, size, dtype, declared.device)
        item.extra_keyword_matches.update({item.case.id, scenario.name, strategy, dtype})
        for mark in declared.marks:
            item.add_marker(mark)
        found.append(item)
    return found


class OwnItem(CaseItem):
    """One case of a project's own scenario."""

    declared: OwnCases
    scenario: OwnScenario

    def run(self) -> Run:
        return self.config.stash[OWN].of(self)


class OwnRun:
    """The run of all selected cases of a project, as a plug-in of the project's pytest."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.items: list[OwnItem] = []
        self._run: Run | None = None
        self._error: BadRequest | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._begun = False
        self.written: list[Path] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = [item for item in session.items if isinstance(item, OwnItem)]
        if not self.items or self.config.option.collectonly:
            return
        try:
            self._run = Run(self._options())
            self._run.start()
        except BadRequest as error:
            self._error = error

    def _options(self) -> Options:
        """The options of the run. Everything not in them is as ``distparity run`` has it."""
        reports = self.config.getini(REPORTS)
        # Each worker of pytest-xdist has the whole run's items, and makes those that it is given.
        if not reports or hasattr(self.config, "workerinput"):
            self._folder = tempfile.TemporaryDirectory(prefix="distparity-reports-")
            reports = self._folder.name
        for item in self.items:
            item.case = item.case._replace(device=self._device(item.declared))
        devices = dict.fromkeys(item.case.device for item in self.items)
        scenarios = {item.scenario.name: item.scenario for item in self.items}
        for item in self.items:
            if (other := scenarios[item.scenario.name]) != item.scenario:
                raise BadRequest(
                    f"two scenarios are called {item.scenario.name!r}, in {other.module.file} and "
                    f"{item.scenario.module.file}: set the attribute name in one of the classes"
                )
        return Options(
            devices=list(devices),
            world_sizes=sorted({item.case.world_size for item in self.items}),
            limit=max(item.declared.timeout for item in self.items),
            report_dir=Path(reports),
            part=True,
            select=EVERY,
            scenarios=list(scenarios),
            own_scenarios=list(scenarios.values()),
            own_modules=list(dict.fromkeys(m for i in self.items for m in i.declared.modules)),
            node_ids={item.case.id: item.nodeid for item in self.items},
            command=["pytest", *map(str, self.config.invocation_params.args)],
        )

    def _device(self, declared: OwnCases) -> str:
        if declared.device != "auto":
            return declared.device
        return os.environ.get(OWN_DEVICE) or self.config.getini(DEVICE)

    def of(self, item: OwnItem) -> Run:
        """The run, ready for this item; raises what fails the item, and not the project's other tests."""
        if not self._begun:
            self._begun = True
            try:
                self._begin()
            except BadRequest as error:
                self._error = error
        if self._error is not None:
            pytest.fail(
                "\n".join(filter(None, [str(self._error), self._error.detail])), pytrace=False
            )
        assert self._run is not None
        if item.case not in self._run.listed:
            pytest.fail(self._undefined(item.case), pytrace=False)
        return self._run

    def _begin(self) -> None:
        if self._run is None or self._error is not None:
            return
        self._run.ready()
        # An accelerator comes before the CPU.
        kinds = sorted((cell.device for cell in self._run.cells), key=lambda kind: kind == "cpu")
        for item in self.items:
            if item.case.device == "auto":
                item.case = item.case._replace(device=kinds[0])
                # pytest keeps it, and has asked for it before.
                vars(item).pop("location", None)
        own = [item.case for item in self.items if item.case in self._run.listed]
        ahead = [] if hasattr(self.config, "workerinput") else own
        self._run.declare(list(dict.fromkeys(own)), ahead=ahead)

    def _undefined(self, case: Case) -> str:
        """Why the suite has no such case."""
        assert self._run is not None
        torch = self._run.torch
        how = torch.strategies.get(case.strategy)
        if how is None:
            return f"unknown strategy {case.strategy!r}; known: {', '.join(torch.strategies)}"
        why = how.refuses(torch.scenarios[case.scenario].features)
        if why is not None:
            return f"{case.strategy} has nothing to do for {case.scenario}: {why}"
        if case.dtype not in torch.scenarios[case.scenario].dtypes:
            return f"{case.scenario} has no dtype {case.dtype!r}: add it to its attribute dtypes"
        return f"{case.strategy} is not defined for {case.world_size} ranks"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        return timed(item, (yield), call.when)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        run = self._run
        if run is None:
            return
        if run.nothing_shown() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        # -x and --maxfail leave cases without a result, which pytest does not count.
        self.written = run.finish("finished")
        if run.complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        lines = list(self._lines())
        if lines:
            terminalreporter.section("distparity")
        for line in lines:
            terminalreporter.write_line(line)

    def _lines(self) -> Iterator[str]:
        run = self._run
        if run is None or not self._begun:
            return
        for device in run.nothing_shown():
            yield f"the run fails: every case on the named device {device} was skipped"
        yield from run.complaints
        if self._folder is None:
            yield from (f"wrote {path}" for path in self.written)

    def pytest_unconfigure(self) -> None:
        if self._run is not None:
            self._run.close()
        if self._folder is not None:
            self._folder.cleanup()
