"""What the tests of the harness share: a real run of the suite, in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch is imported, here and in what is started: where several tests run at once, threads that wait
# for each other's parts of an operator burn what the others need.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import faulty_runs
import pytest
from hypothesis import HealthCheck, settings
from junitparser import xunit2 as junitparser
from warm import PATIENCE, Warm, can_run, started

pytest_plugins = ["pytester"]
# What an example takes on a busy machine says nothing about it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


#: The variable that tells the workers of pytest-xdist where the process is that has imported torch.
WARM = "TESTS_WARM"
_ending = contextlib.ExitStack()


@functools.cache
def one_warm() -> Warm:
    found = Warm(os.environ.get(WARM) or _ending.enter_context(started()))
    _ending.callback(found.end)
    return found


def pytest_configure(config: pytest.Config) -> None:
    faulty_runs.heed_signals()
    faulty_runs.warm = one_warm
    if config.getoption("numprocesses", None):
        os.environ[WARM] = _ending.enter_context(started())
        _ending.callback(os.environ.pop, WARM)


def pytest_collection_finish() -> None:
    # What has been imported stays: the garbage collector took a fifth of the time of these tests.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    _ending.close()


#: The files that take longest, which begin first: otherwise one of them ends alone. Those that mostly wait
#: for limits to pass stand beside those that compute.
LONGEST = (
    "test_astray",
    "test_devices",
    "test_noxfile",
    "test_faults",
    "test_pins",
    "test_strategies",
    "test_campaign",
    "test_operations",
    "test_run",
    "test_report_page",
    "test_faults_around",
    "test_guide",
    "test_doctor",
    "test_async_device",
    "test_sizes",
    "test_upstream",
    "test_ci",
    "test_expectations",
    "test_terminal",
    "test_your_model",
    "test_bisect",
    "test_two_hosts",
    "test_generated",
    "test_declared",
    "test_selfcheck",
    "test_fuzz",
    "test_scheduler",
    "test_shares",
    "test_slurm",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a failed test shows may have lone surrogates, which xdist cannot send."""
    return _sendable((yield))


def _sendable(data: Any) -> Any:
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode()
    if isinstance(data, dict):
        return {_sendable(key): _sendable(value) for key, value in data.items()}
    return type(data)(map(_sendable, data)) if isinstance(data, (list, tuple)) else data


TESTS = Path(__file__).parent
#: The strategies that run everything by default, and pytest's expression for their cases.
CORE = ("ddp", "fsdp1", "fsdp1_orig_params", "fsdp2")
CORE_ONLY = "(" + " or ".join(f"/{strategy}-ws" for strategy in CORE) + ")"


@dataclass
class Ran:
    """A finished run: its exit code, what it printed, and where its reports are."""

    code: int
    output: str
    folder: Path

    def suite(self, cell: str) -> junitparser.TestSuite:
        """The XML of a cell, as a consumer reads it."""
        (suite,) = junitparser.JUnitXml.fromfile(str(self.folder / f"junit-{cell}.xml"))
        return suite

    def statuses(self, cell: str) -> dict[str, str]:
        return {name: facts["status"] for name, facts in self.properties(cell).items()}

    def properties(self, cell: str) -> dict[str, dict[str, str]]:
        """Every test case's properties by ``scenario/name``."""
        return {
            f"{case.classname.removeprefix('distparity.')}/{case.name}": {
                p.name: p.value for p in case.properties()
            }
            for case in self.suite(cell)
        }

    def text(self, cell: str, case: str) -> str:
        """The whole account of a case that did not pass."""
        (found,) = (
            c for c in self.suite(cell) if f"{c.classname}/{c.name}" == f"distparity.{case}"
        )
        return str(found.result[0].text)


def run_words(*words: str) -> list[str]:
    """The words after ``distparity`` of a run that keeps nothing for pytest's ``--lf``."""
    return ["run", "-p", "no:cacheprovider", *words]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "distparity", *run_words(*words)]


def environment(**more: str) -> dict[str, str]:
    """This process's variables, with the modules under ``included`` importable."""
    path = [str(TESTS / "included"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **more}


Suite = Callable[..., Ran]


@pytest.fixture(scope="session")
def warm() -> Warm:
    return one_warm()


#: Runs ``python -m distparity`` with words, a folder and variables.
Distparity = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def distparity(warm: Warm) -> Distparity:
    """Run a command; ``together`` merges its standard error into its standard output."""

    def run(
        *words: str, cwd: Path, together: bool = False, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        known = environment(**variables)
        if can_run(known, environment()):
            return warm.run(list(words), cwd, known, PATIENCE, together=together)
        return subprocess.run(
            [sys.executable, "-m", "distparity", *words],
            cwd=cwd,
            env=known,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if together else subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory, distparity: Distparity) -> Suite:
    """Run the suite with the words given, in an empty folder, as cell ``here``.

    It runs on the CPU unless a device is named, and not on every device that is installed here.
    """

    def run(*words: str, **variables: str) -> Ran:
        folder = tmp_path_factory.mktemp("run")
        device = () if "--device" in words else ("--device", "cpu")
        known = run_words("--cell", "here", *device, *words)
        done = distparity(*known, cwd=folder, together=True, **variables)
        return Ran(done.returncode, done.stdout, folder / "reports")

    return run
