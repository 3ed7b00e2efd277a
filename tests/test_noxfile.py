"""The noxfile as its user meets it: real nox, environments and installers, and a torch that is fake
where only the plumbing is in question.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from conftest import Ran
from loopback_index import Quiet, fake_wheel, serve
from warm import PATIENCE

from distparity import releases
from distparity.releases.interpreters import RUNNING

ROOT = Path(__file__).parents[1]
MATRIX = [row.session for row in releases.ROWS]
#: Variables that would choose for the nox under test what its test chooses.
OURS = re.compile("NOX|DISTPARITY_|UV_PYTHON|UV_PROJECT|VIRTUAL_ENV|PYTHONPATH|PYTEST_|CI$")
DRESSED = "the fake torch of the index"
BACKENDS = pytest.mark.parametrize("backend", ["uv", "virtualenv"])


def _checkout(folder: Path) -> Path:
    for name in ("noxfile.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "ci").mkdir()
    shutil.copy(ROOT / "ci/metadata.py", folder / "ci")
    for name in ("src", "defects"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that cannot be installed, at no cost in time: sessions end after their torch."""
    checkout = _checkout(tmp_path_factory.mktemp("stuck"))
    about = checkout / "pyproject.toml"
    about.write_text(re.sub(r"requires = \[.*\]", "requires = []", about.read_text(), count=1))
    return checkout


class Nox:
    """Runs nox on a checkout, with environments and reports in a folder of the test's own."""

    def __init__(self, checkout: Path, folder: Path, backend: str = "uv") -> None:
        self.checkout = checkout
        self.folder = folder
        self.backend = backend
        self.python = sys.executable

    def command(self, *words: str) -> list[str]:
        own, _, rest = " ".join(words).partition(" -- ")
        start = [self.python, "-m", "nox", "--envdir", str(self.folder / "env")]
        end = ["--", "--report-dir", str(self.folder / "reports"), *rest.split()]
        force = [] if self.backend == "uv" else ["--force-venv-backend", self.backend]
        return [*start, *force, *own.split(), *end]

    def __call__(self, *words: str, **variables: str) -> Ran:
        done = subprocess.run(
            self.command(*words),
            cwd=self.checkout,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Ran(done.returncode, done.stdout, self.folder / "reports")

    def environment(self, **more: str) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not OURS.match(k)}
        # What this machine's pip is configured to refuse is about no torch of these indexes. Compiling
        # what is installed takes longer than installing it, and so does a pip for each environment.
        others = {"PIP_CONSTRAINT": os.devnull, "PIP_NO_COMPILE": "1", "UV_COMPILE_BYTECODE": "0"}
        others["VIRTUALENV_SYMLINK_APP_DATA"] = "1"
        return own | others | more

    def torches(self) -> list[str]:
        """The torch in each session's own environment."""
        return self.installed("torch")

    def installed(self, name: str) -> list[str]:
        found = self.folder.glob(f"env/*/lib/python*/site-packages/{name}-*.dist-info")
        return [path.name.removesuffix(".dist-info") for path in found]


@pytest.fixture
def nox(checkout: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Nox:
    callspec = getattr(request.node, "callspec", None)
    return Nox(checkout, tmp_path, callspec.params.get("backend", "uv") if callspec else "uv")


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An index with, in its folders, torches that install and do not import."""
    root = tmp_path_factory.mktemp("index")
    code = f"raise ImportError({DRESSED!r})"
    for folder, version in {
        "nightly/cpu": "99.0.0.dev20261101",
        "stable/nightly/cpu": "99.0.0",
        "cpu": "2.13.0+cpu",
        "xpu": "2.13.0+xpu",
        "wrong": "2.13.1",
    }.items():
        fake_wheel(root / folder / "torch", version, code)
    (root / "empty/nightly/cpu").mkdir(parents=True)
    with serve(root) as address:
        yield address


@pytest.fixture(scope="session")
def dead() -> Iterator[str]:
    """The address of an index that does not exist; its port stays reserved."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def _plant_green(folder: Path, cell: str) -> Path:
    """A report of a former run, in which all was well."""
    folder.mkdir(exist_ok=True)
    path = folder / f"junit-{cell}.xml"
    path.write_text(
        '<testsuites><testsuite name="old"><testcase name="a"/></testsuite></testsuites>'
    )
    return path


# -- which sessions there are ----------------------------------------------------------------------


def _listed(nox: Nox, *words: str) -> dict[str, str]:
    """The sessions that nox lists, each with the mark that says whether it would run."""
    done = nox("--list", *words)
    assert done.code == 0, done.output
    lines = re.findall(r"^([-*]) (\S+) (?:\[\S+\] )?-> [A-Z].+\.$", done.output, re.MULTILINE)
    assert len(lines) == len(re.findall(r"^[-*] ", done.output, re.MULTILINE))
    return {name: mark for mark, name in lines}


def test_sessions_are_the_rows_of_the_table(nox: Nox) -> None:
    listed = _listed(nox)
    releases = [f"tests-2.{minor}" for minor in range(4, 16)]

    assert [name for name in listed if name.startswith("tests-")] == MATRIX
    assert [*releases, "tests-nightly", "tests-local"] == MATRIX
    assert [name for name, mark in listed.items() if mark == "*"] == ["selftest", "lint", "types"]


def test_tag_selects_the_releases(nox: Nox) -> None:
    listed = _listed(nox, "-t stable")

    assert [name for name, mark in listed.items() if mark == "*"] == MATRIX[:-2]


@pytest.mark.parametrize("words", ["-s tests-2.3", "--session tests-2.13 tset", "-e test-2.13"])
def test_unknown_session_is_named_with_the_known_ones(nox: Nox, words: str) -> None:
    done = nox(words)

    assert done.code != 0
    assert f"there is no session {words.rsplit(maxsplit=1)[-1]!r}; " in done.output
    assert f"there are: {', '.join(MATRIX)}" in done.output
    if words == "-e test-2.13":
        assert "did you mean tests-2.13" in done.output
    assert "Running session" not in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("-k tests-2.9 -l", "one session is: -s tests-2.9"),
        ("-s tests-2.13 -- --dev cpu", "unknown option '--dev'; did you mean '--device' or"),
        ("-s tests-2.13 -- --device cup", "unknown device 'cup'; did you mean 'cpu'?"),
    ],
)
def test_misspelt_name_costs_no_install(nox: Nox, words: str, says: str) -> None:
    done = nox(words)

    assert done.code != 0
    assert says in done.output
    assert not nox.torches()


# -- cells that cannot be --------------------------------------------------------------------------

OTHER_PYTHON = "3.10" if sys.version_info[:2] != (3, 10) else "3.11"


@BACKENDS
@pytest.mark.parametrize(
    ("words", "cell", "message"),
    [
        pytest.param(
            "-s tests-nightly -- --index {dead}",
            "nightly-cpu",
            "the index {dead}/nightly/cpu does not answer: [Errno 111] Connection refused",
            id="dead index",
        ),
        pytest.param(
            "-s tests-2.13 -- --index {dead} --wheel cu126 --device cuda",
            "2.13-cuda",
            "the index {dead}/cu126 does not answer: [Errno 111] Connection refused",
            id="dead index for a release",
        ),
        pytest.param(
            "-s tests-nightly -- --index {secretive}",
            "nightly-cpu",
            "the index {censored}/nightly/cpu does not answer: [Errno 111] Connection refused",
            id="dead index with a password",
        ),
        pytest.param(
            "-s tests-nightly -- --index {index}/empty",
            "nightly-cpu",
            "the index {index}/empty/nightly/cpu has no torch: HTTP Error 404: File not found",
            id="index without torch",
        ),
        pytest.param(
            "-s tests-nightly -- --index {index}/stable",
            "nightly-cpu",
            "torch>=0.dev0 from {index}/stable/nightly/cpu was requested, but torch 99.0.0 was installed",
            id="stable for nightly",
        ),
        pytest.param(
            "-s tests-2.12 -- --index {index} --wheel wrong",
            "2.12-cpu",
            "torch==2.12.1 from {index}/wrong could not be installed",
            id="no such release",
        ),
    ],
)
def test_index_that_does_not_have_it_is_one_line_and_red(
    nox: Nox, words: str, cell: str, message: str, backend: str, index: str, dead: str
) -> None:
    names = {
        "index": index,
        "dead": dead,
        "secretive": dead.replace("//", "//me:hunter2@"),
        "censored": dead.replace("//", "//me:***@"),
    }

    _check_red(nox, words.format(**names), cell, message.format(**names))


@pytest.mark.parametrize(
    ("words", "cell", "message"),
    [
        pytest.param(
            "-s tests-2.4 -- --device xpu",
            "2.4-xpu",
            "there is no torch 2.4 for xpu: its wheels begin at torch 2.5",
            id="before xpu",
        ),
        pytest.param(
            "-s tests-2.13 -- --device cpu --device hpu",
            "2.13-hpu",
            "hpu needs Habana's build of torch: install it, and run `nox -s tests-local`",
            id="vendor's build",
        ),
        pytest.param(
            "-s tests-nightly -- --device cuda,xpu",
            "nightly-xpu",
            "no single wheel of torch nightly supports cuda and xpu",
            id="two vendors",
        ),
        pytest.param(
            "-s tests-local -- --wheel cpu",
            "local-cpu",
            "tests-local installs no torch: remove --wheel and --index",
            id="wheel for local",
        ),
    ],
)
def test_cell_that_cannot_be_is_one_line_and_red(
    nox: Nox, words: str, cell: str, message: str
) -> None:
    _check_red(nox, words, cell, message)


def _check_red(nox: Nox, words: str, cell: str, message: str) -> None:
    _plant_green(nox.folder / "reports", cell)

    done = nox(words)

    assert done.code != 0
    assert "Traceback" not in done.output
    (line,) = (line for line in done.output.splitlines() if message in line)
    assert "aborted" in line
    assert done.statuses(cell) == {"cell/start": "error"}
    assert message in done.text(cell, "cell/start")


@pytest.mark.parametrize(
    ("words", "cell", "message"),
    [
        (
            "-s tests-2.13 --force-python 3.9",
            "2.13-cpu",
            "torch 2.13 supports Python 3.10, 3.11, 3.12, 3.13, 3.14, but Python 3.9 was requested",
        ),
        (
            f"-s tests-local -P {OTHER_PYTHON}",
            "local-cpu",
            f"the installed torch supports Python {RUNNING}, but Python {OTHER_PYTHON} was requested",
        ),
        (
            "-s tests-nightly --force-pythons /no/such/python -- --device cpu",
            "nightly-cpu",
            "but Python /no/such/python was requested",
        ),
    ],
    ids=["old", "local", "no Python"],
)
def test_python_that_the_row_is_not_for_is_red(
    nox: Nox, words: str, cell: str, message: str
) -> None:
    _plant_green(nox.folder / "reports", cell)

    done = nox(words)

    assert done.code != 0
    assert message in done.output
    assert message in done.text(cell, "cell/start")


@pytest.mark.parametrize("force", ["", "--force-python 3.41"], ids=["row", "forced"])
def test_row_without_a_python_here_is_an_error_not_a_skip(tmp_path: Path, force: str) -> None:
    table = _checkout(tmp_path) / "src/distparity/releases/table.py"
    table.write_text(table.read_text().replace('"2.4.1", "3.10-3.12"', '"2.4.1", "3.40-3.41"'))

    done = Nox(tmp_path, tmp_path)(f"-s tests-2.4 {force}")

    message = "torch 2.4 supports Python 3.40, 3.41, but "
    message += "no Python 3.41 was found" if force else f"only Python {RUNNING} was found"
    assert done.code != 0
    assert message in done.output
    assert message in done.text("2.4-cpu", "cell/start")


def test_report_lies_in_reports_when_nothing_else_is_said(tmp_path: Path, dead: str) -> None:
    nox = Nox(_checkout(tmp_path), tmp_path / "nox")
    command = nox.command("-s tests-nightly")

    done = subprocess.run(
        command[: command.index("--")],
        cwd=tmp_path,
        env=nox.environment(DISTPARITY_TORCH_INDEX=dead),
        check=False,
    )

    assert done.returncode != 0
    assert Ran(1, "", tmp_path / "reports").statuses("nightly-cpu") == {"cell/start": "error"}


def test_report_folder_that_cannot_be_written_stops_before_the_install(nox: Nox) -> None:
    done = nox("-s tests-2.13 -- --report-dir /proc/reports")

    assert done.code != 0
    assert "cannot write reports to /proc/reports: [Errno 2]" in done.output
    assert "install" not in done.output


def test_looking_leaves_the_report_of_the_last_run(nox: Nox, dead: str) -> None:
    old = _plant_green(nox.folder / "reports", "nightly-cpu")
    text = old.read_text()

    assert nox(f"-s tests-nightly -- --collect-only --index {dead}").code != 0
    assert old.read_text() == text


# -- what is installed -----------------------------------------------------------------------------


@BACKENDS
def test_torch_that_does_not_import_is_red(nox: Nox, backend: str, index: str) -> None:
    _plant_green(nox.folder / "reports", "nightly-cpu")

    done = nox("-s tests-nightly", DISTPARITY_TORCH_INDEX=index)

    assert done.code != 0
    assert nox.torches() == ["torch-99.0.0.dev20261101"]
    assert len(nox.installed("numpy")) == 1
    assert done.statuses("nightly-cpu") == {"cell/start": "error"}
    assert DRESSED in done.text("nightly-cpu", "cell/start")


@BACKENDS
def test_environment_follows_the_build_that_is_asked_for(
    nox: Nox, backend: str, index: str, stuck: Path
) -> None:
    """The same requirement, from another folder of the index: to an installer, nothing to do."""
    nox.checkout = stuck
    for wheel in ("cpu", "xpu"):
        done = nox(f"-s tests-2.13 -- --index {index} --wheel {wheel}")
        assert nox.torches() == [f"torch-2.13.0+{wheel}"], done.output

    done = nox(f"-s tests-2.13 -- --index {index} --wheel xpu")
    assert "torch==2.13.0" not in done.output
    assert "distparity could not be installed" in done.text("2.13-cpu", "cell/start")


@BACKENDS
def test_nightly_is_the_newest(nox: Nox, backend: str, stuck: Path) -> None:
    nox.checkout = stuck
    root = nox.folder / "index"
    with serve(root) as address:
        for version in ("99.0.0.dev20261101", "99.0.0.dev20261102"):
            fake_wheel(root / "nightly/cpu/torch", version, f"raise ImportError({DRESSED!r})")
            done = nox(f"-s tests-nightly -- --index {address}")
            assert nox.torches() == [f"torch-{version}"], done.output


# -- the torch that is here ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has nox, and no torch."""
    folder = tmp_path_factory.mktemp("home")
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "-p", sys.executable, "--clear", folder], check=True)
    python = folder / "bin/python"
    subprocess.run([*uv, "pip", "install", "-q", "--python", python, "nox[uv]"], check=True)
    return python


@BACKENDS
def test_local_without_torch_is_red(nox: Nox, backend: str, interpreter: Path) -> None:
    nox.python = str(interpreter)

    done = nox("-s tests-local")

    message = f"{interpreter}, the interpreter that runs nox, has no torch"
    assert done.code != 0
    assert message in done.text("local-cpu", "cell/start")
    assert message in done.output


@BACKENDS
def test_local_borrows_torch_and_installs_none(
    nox: Nox, backend: str, interpreter: Path, tmp_path: Path
) -> None:
    """By an editable install's way, as in-house builds have it: a path file, and no metadata."""
    nox.python = str(interpreter)
    (tmp_path / "build/torch").mkdir(parents=True)
    (tmp_path / "build/torch/__init__.py").write_text("raise ImportError(f'borrowed {__file__}')")
    (tmp_path / "build/numpy.py").write_text("")
    (packages,) = interpreter.parents[1].glob("lib/python*/site-packages")
    editable = packages / "in-house.pth"
    editable.write_text(f"{tmp_path / 'build'}\n")

    done = nox("-s tests-local")

    editable.unlink()
    assert done.code != 0
    assert f"borrowed {tmp_path}/build/torch/" in done.text("local-cpu", "cell/start")
    assert nox.torches() == []
    assert nox.installed("numpy") == []


def test_local_runs_the_suite_with_a_real_torch(nox: Nox) -> None:
    done = nox("-s tests-local -- --device cpu --case multiple_forward/ddp-ws2-float32")

    assert done.code == 0, done.output
    assert set(done.statuses("local-cpu").values()) == {"passed"}
    assert nox.torches() == []


# -- Ctrl-C ----------------------------------------------------------------------------------------


def _interrupt(nox: Nox, words: str, when: Callable[[], bool]) -> Ran:
    """Press Ctrl-C when it is time: every process of the terminal gets the signal."""
    mark = f"DISTPARITY_TEST_MARK={nox.folder}"
    with (nox.folder / "output").open("w+") as output:
        process = subprocess.Popen(
            nox.command(words),
            cwd=nox.checkout,
            env=nox.environment(DISTPARITY_TEST_MARK=str(nox.folder)),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(lambda: when() or process.poll() is not None, "the moment for Ctrl-C")
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=PATIENCE)
            _wait(lambda: not _marked(mark), "the end of every process")
        finally:
            for left in _marked(mark):
                os.kill(left, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return Ran(process.returncode, output.read(), nox.folder / "reports")


def _marked(mark: str) -> list[int]:
    """Every living process that carries the mark in its environment."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if mark.encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
    return found


def _wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.05)


@BACKENDS
def test_ctrl_c_while_installing(nox: Nox, backend: str, index: str, stuck: Path) -> None:
    nox.checkout = stuck
    asked, done = threading.Event(), threading.Event()

    class Hanging(Quiet):
        def send_head(self) -> io.BytesIO | BinaryIO | None:
            if ".whl" in self.path:
                asked.set()
                done.wait(60)
            return super().send_head()

    fake_wheel(nox.folder / "index/cpu/torch", "2.13.0+cpu")
    with serve(nox.folder / "index", Hanging) as address:
        try:
            ran = _interrupt(nox, f"-s tests-2.13 -- --index {address} --wheel cpu", asked.is_set)
        finally:
            done.set()

    assert ran.code == 130
    assert ran.statuses("2.13-cpu") == {"cell/start": "error"}
    assert "the session ended before" in ran.text("2.13-cpu", "cell/start")

    again = nox(f"-s tests-2.13 -- --index {index} --wheel cpu")
    assert again.output.count("Creating virtual environment") == 1
    assert nox.torches() == ["torch-2.13.0+cpu"]


def test_ctrl_c_while_running_keeps_what_ran(nox: Nox) -> None:
    journal = nox.folder / "reports/junit-local-cpu.jsonl"

    def under_way() -> bool:
        lines = journal.read_text().splitlines() if journal.exists() else []
        return len(lines) > 3 and "cell/start" not in lines[0]

    ran = _interrupt(nox, "-s tests-local -- --device cpu --world-size 2", under_way)

    statuses = list(ran.statuses("local-cpu").values())
    assert ran.code != 0
    assert statuses.count("passed") > 1
    assert "missing" in statuses
