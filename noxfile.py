# /// script
# dependencies = ["nox[uv]>=2026.4.10"]
# ///
"""distparity: does distributed training with this torch, here, compute what one process computes?

The torch releases are the rows of src/distparity/matrix.py. What follows ``--`` goes to the suite
(``--device cpu --world-size 2 -k "multiple_forward and fsdp2"``), but for ``--wheel`` and
``--index``, which choose the build of torch.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path

import nox
from nox.command import CommandFailed

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "src"))

from distparity import junit, matrix  # noqa: E402  the path above makes them importable

nox.needs_version = ">=2026.4.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "types", "selftest"]

#: The project's own tests use this row of the matrix.
SELFTEST = matrix.row("2.13")
RUNNING = f"3.{sys.version_info.minor}"


# -- the matrix ------------------------------------------------------------------------------------


def tests(session: nox.Session, row: matrix.Row) -> None:
    """Run the suite with one torch; the part that is the same in every cell of the matrix."""
    options, rest = _cell_options(row, session.posargs)
    try:
        if row is matrix.LOCAL:
            _borrow_torch(session)
        else:
            _install_torch(session, row, options)
    except matrix.NoSuchCell as error:
        _broken_cell(session, row, options, str(error))
    _install_suite(session)
    run = ["distparity", "run", "--cell", row.name]
    if options.device is not None:
        run += ["--device", options.device]
    if options.report_dir is not None:
        run += ["--report-dir", options.report_dir]
    session.run(*run, *rest)


def _cell_options(row: matrix.Row, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog=f"nox -s {row.session} --", allow_abbrev=False)
    parser.add_argument("--wheel", help="build of torch: registry, cpu, cu126, rocm6.4, xpu, ...")
    parser.add_argument("--index", help=f"in place of {matrix.INDEX} ({matrix.INDEX_VARIABLE})")
    parser.add_argument("--device", help="auto, cpu, cuda, xpu, ...")
    parser.add_argument("--report-dir", help="where the XML goes")
    return parser.parse_known_args(words)


def _install_torch(session: nox.Session, row: matrix.Row, options: argparse.Namespace) -> None:
    if session.python and session.python not in row.pythons:
        raise matrix.NoSuchCell(_no_wheel(row, f"this session's is {session.python}"))
    source = matrix.source(row, options.device or "auto", options.wheel, options.index)
    if row is matrix.NIGHTLY:
        _reach(str(source.index))
    try:
        if source.index is None:
            _install(session, source.requirement)
        elif session.venv_backend == "uv":
            _install(session, source.requirement, "--index", source.index)
        else:
            # pip has no first index: with two of them the registry could answer for the other.
            _install(session, "--no-deps", source.requirement, "--index-url", source.index)
            _install(session, source.requirement, "--extra-index-url", source.index)
    except CommandFailed:
        if source.index is not None:
            _reach(source.index)
        raise matrix.NoSuchCell(
            f"{source.requirement} could not be installed from {source.index or 'the registry'}"
        ) from None
    _check_version(session, row)


def _install(session: nox.Session, *words: str) -> None:
    # Imports of torch take twice as long without bytecode, and uv compiles none unless told.
    session.install(*words, env={"UV_COMPILE_BYTECODE": "1"})


def _check_version(session: nox.Session, row: matrix.Row) -> None:
    """See that the torch that came is the row's: an index may have passed the question on."""
    script = "from importlib.metadata import version; print(version('torch'))"
    version = str(session.run("python", "-c", script, silent=True)).strip()
    if row is matrix.NIGHTLY:
        right = any(mark in version for mark in ("dev", "a", "rc"))
    else:
        right = version.partition("+")[0] == row.requirement.partition("==")[2]
    if not right:
        raise matrix.NoSuchCell(f"{row.requirement} was asked for and torch {version} came")


def _reach(index: str) -> None:
    """Say in one line that an index does not answer, before an installer says it in twenty."""
    try:
        urllib.request.urlopen(f"{index}/torch/", timeout=20).close()
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise matrix.NoSuchCell(f"the index {index} does not answer: {reason}") from None


def _borrow_torch(session: nox.Session) -> None:
    """Let the session see the packages of the interpreter that runs nox, torch among them."""
    probe = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    if subprocess.run([sys.executable, "-c", probe], check=False).returncode != 0:
        raise matrix.NoSuchCell(
            f"there is no torch in {sys.executable}, the interpreter running nox"
        )
    # Added last, so that what is installed here goes first; by addsitedir, so that editable
    # installs there (an in-house build of torch, say) are seen as well.
    folders = dict.fromkeys(
        [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        + [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    )
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    here = Path(str(session.run("python", "-c", script, silent=True)).strip())
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders]
    (here / "zz-the-torch-that-is-here.pth").write_text("\n".join(lines) + "\n")


def _install_suite(session: nox.Session) -> None:
    _install(session, "-e", ".")


def _broken_cell(
    session: nox.Session, row: matrix.Row, options: argparse.Namespace, message: str
) -> None:
    """End the session, and leave an XML file in which the cell is an error, not absent."""
    folder = Path(options.report_dir or "reports")
    device = options.device if options.device not in (None, "auto") else "cpu"
    facts = {"torch": row.requirement or "the one that is here", "python": str(session.python)}
    try:
        for name in device.split(","):
            path = junit.write_broken_cell(folder, row.name, name, message, "", facts)
            session.log(f"wrote {path}")
    except OSError as error:
        session.warn(f"cannot write reports to {folder}: {error}")
    session.error(message)


def _no_wheel(row: matrix.Row, having: str) -> str:
    span = f"{row.pythons[0]} to {row.pythons[-1]}"
    return f"torch {row.name} has wheels for Python {span}, and {having}"


def _python_for(row: matrix.Row) -> str | None:
    """An interpreter that the row has wheels for: the running one, else the newest on this machine."""
    if not row.pythons or RUNNING in row.pythons:
        return sys.executable
    for version in reversed(row.pythons):
        found = shutil.which(f"python{version}")
        # A version manager's shim may stand for an interpreter that is not there.
        if (
            found
            and subprocess.run([found, "-V"], capture_output=True, check=False).returncode == 0
        ):
            return version
    return None


def _register(row: matrix.Row) -> None:
    python = _python_for(row)

    def session(session: nox.Session) -> None:
        if python is None:
            options, _ = _cell_options(row, session.posargs)
            having = f"this machine has Python {RUNNING} and none of those"
            _broken_cell(session, row, options, _no_wheel(row, having))
        tests(session, row)

    session.__doc__ = row.title
    nox.session(
        name=row.session,
        tags=[row.tag, "matrix"],
        default=False,
        python=None if python in (None, sys.executable) else python,
        venv_backend="none" if python is None else None,
    )(session)


for _row in matrix.ROWS:
    _register(_row)


# -- the project itself ----------------------------------------------------------------------------


@nox.session
def selftest(session: nox.Session) -> None:
    """Pass the project's own tests, with real ranks and a real torch."""
    _install(session, SELFTEST.requirement)
    _install(
        session, "-e", ".", "./tests/sim_device", *nox.project.dependency_groups(PYPROJECT, "test")
    )
    session.run("pytest", "tests", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly, against a real torch."""
    _install(session, SELFTEST.requirement)
    _install(session, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "types"))
    session.run("mypy")


@nox.session(default=False)
def benchmark(session: nox.Session) -> None:
    """Measure one more case here against one under PyTorch's MultiProcessTestCase."""
    _install(session, SELFTEST.requirement, "expecttest")
    _install(session, "-e", ".")
    session.run("python", "benchmarks/marginal_cost.py", *session.posargs)


PYPROJECT = nox.project.load_toml(HERE / "pyproject.toml")


# -- a session that is not there -------------------------------------------------------------------


def _asked_for(words: list[str]) -> list[str]:
    """The session names on nox's command line, or in its variable."""
    names: list[str] = []
    taking = False
    for word in words:
        if word == "--":
            break
        if word.startswith("-"):
            name, _, value = word.partition("=")
            taking = name in ("-s", "-e", "--session", "--sessions")
            names += [value] if taking and value else []
        elif taking:
            names.append(word)
    return names or os.environ.get("NOXSESSION", "").replace(",", " ").split()


def _refuse(name: str, known: list[str]) -> None:
    @nox.session(name=name, venv_backend="none", default=False)
    def unknown(session: nox.Session) -> None:
        """Say which sessions there are."""
        session.error(f"there is no session {name!r}; there are: {', '.join(known)}")


_KNOWN = [row.session for row in matrix.ROWS] + ["selftest", "lint", "types", "benchmark"]
for _name in _asked_for(sys.argv[1:]):
    if _name not in _KNOWN:
        _refuse(_name, _KNOWN)
