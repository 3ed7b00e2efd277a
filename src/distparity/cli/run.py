"""``distparity run``: run the suite, with pytest."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from distparity.core.bad_request import BadRequest
from distparity.releases import NoSuchCell, cells
from distparity.session import arguments

#: Options that pytest answers without running anything.
_ENDS_SOON = {"-V", "--version", "--markers", "--fixtures"}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="run the suite with the installed torch; takes pytest's options too",
        usage="distparity run [CASE ...] [OPTION ...] [PYTEST'S OPTION ...]",
        description="Run the suite with pytest. CASE is an id, a scenario, a family or a pattern. "
        "pytest's own options work too (`pytest --help`): -k, -x, --lf, --durations, --collect-only.",
    )
    for title, table in arguments.OF_A_RUN.items():
        arguments.declare(parser.add_argument_group(title).add_argument, *table)
    _declare_cells(parser.add_argument_group("cells of your own"))
    parser.set_defaults(act=_act)


def _declare_cells(group: Any) -> None:
    group.add_argument("--cells", type=Path, metavar="FILE", help="run the cells of this TOML file")
    group.add_argument("--only", metavar="NAME", help="of that file, only the cell with this name")


def _act(_: argparse.Namespace) -> NoReturn:
    become_pytest([])


def check(words: list[str]) -> argparse.Namespace:
    """Refuse wrong values of our options; pytest's options, and CASE, pass through unread."""
    from distparity.cli._parser import Parser

    parser = Parser(prog="distparity run", add_help=False)
    for table in arguments.OF_A_RUN.values():
        arguments.declare(parser.add_argument, *table)
    given: argparse.Namespace = argparse.ArgumentParser.parse_known_args(parser, words)[0]
    arguments.options(given)
    return given


def _of_cells(words: list[str]) -> list[str]:
    """The words that ``--cells`` stands for, if they name one cell; its environment is then set.

    With several cells, this runs one after the other, and ends the process. Raises :class:`BadRequest`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _declare_cells(parser)
    given, rest = parser.parse_known_args(words)
    if given.cells is None:
        return words
    try:
        found = cells.read(given.cells, given.only)
    except NoSuchCell as error:
        raise BadRequest(str(error)) from None
    if len(found) == 1:
        os.environ.update(found[0].environment)
        return [*found[0].words(), *rest]
    codes = []
    for cell in found:
        print(f"cell {cell.name}:", flush=True)
        command = [sys.executable, "-m", "distparity", "run", *cell.words(), *rest]
        environment = {**os.environ, **cell.environment}
        codes.append(subprocess.run(command, env=environment, check=False).returncode)
    sys.exit(next(filter(None, codes), 0))


def _among_nodes(words: list[str]) -> list[str]:
    """The words of the controller, if a launcher has started this on several nodes.

    On the other nodes, this serves the controller and ends the process.
    """
    from distparity.nodes import launched

    launch = launched.found(os.environ)
    if launch is None:
        return words
    words = [*words, f"--nodes-from={launch.by}", f"--node-count={launch.nodes}"]
    given = check(words)
    if launch.rank == 0:
        return words
    from distparity.nodes import join

    Path(given.report_dir).mkdir(parents=True, exist_ok=True)
    meeting = launched.Meeting(launch.by, Path(given.report_dir))
    sys.exit(join.serve(meeting.read, given.interface, launched.JOIN_LIMIT))


def become_pytest(words: list[str]) -> NoReturn:
    """Replace this process by pytest, with the suite and ``words`` as its arguments.

    Raises :class:`~distparity.core.bad_request.BadRequest` for what is wrong on any machine, before
    anything is started.
    """
    from distparity.worlds import start

    start.open_standard_streams()
    words = _among_nodes(_of_cells(words))
    # A new program, because pytest must import this package before anybody else does.
    # The suite is named by its path. With any other name, pytest would also load files of the current
    # folder, such as ``tests/conftest.py`` or a ``pytest.ini``.
    # A conftest next to an included scenario must not apply to the suite either.
    suite = str(Path(__file__).parent.parent)
    # pytest's cache (--lf) is in the current folder, not in the package's.
    cache = ["-o", f"cache_dir={Path.cwd() / '.pytest_cache'}"]
    if any("no:cacheprovider" in word for word in words):
        cache = []
    given = any(word.startswith(("-c", "--config-file", "--rootdir")) for word in words)
    own = Path(__file__).parents[1] / "pytest_plugin" / "run.ini"
    settings = [] if given else ["-c", str(own), f"--rootdir={Path.cwd()}"]
    # Where Hypothesis is installed, its plugin imports all of it at the end of a run, for half a second.
    ours = ["--noconftest", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-m", "pytest", *ours, *settings, *cache, suite, *words]
    begun = not _ENDS_SOON.intersection(words)
    if begun:
        start.ahead()
    try:
        # While torch is imported.
        check(words)
    except (BadRequest, SystemExit):
        if begun:
            start.take().discard()
        raise
    sys.stdout.flush()
    os.execv(sys.executable, command)
