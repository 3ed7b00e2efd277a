"""``distparity run``: the suite, under pytest."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

#: What pytest answers by itself.
_ENDS_SOON = {"-h", "--help", "-V", "--version", "--markers", "--fixtures"}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="run the suite with the installed torch; takes pytest's options too",
        add_help=False,
    )
    parser.set_defaults(act=_act)


def _act(_: argparse.Namespace) -> NoReturn:
    become_pytest([])


def become_pytest(words: list[str]) -> NoReturn:
    """Put pytest in place of this process, with the suite and ``words`` as its arguments."""
    from distparity.worlds import start

    start.open_standard_streams()
    # A process of its own: pytest wants to see this package imported by nobody before itself.
    # By its path: beside a name that is no path, pytest loads what lies about in the current folder,
    # be it ``tests/conftest.py`` and what that needs, or a ``pytest.ini``.
    # Nor is the suite anybody's whose conftest lies beside a scenario that was included.
    suite = str(Path(__file__).parent.parent)
    # What failed last (--lf) is kept where the user is, and not beside the package.
    cache = ["-o", f"cache_dir={Path.cwd() / '.pytest_cache'}"]
    if any("no:cacheprovider" in word for word in words):
        cache = []
    command = [sys.executable, "-m", "pytest", "--noconftest", *cache, suite, *words]
    if not _ENDS_SOON.intersection(words):
        start.ahead()
    sys.stdout.flush()
    os.execv(sys.executable, command)
