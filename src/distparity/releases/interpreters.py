"""Choose a Python on this machine for a row of the matrix.

It needs only the standard library: the noxfile uses it before any environment exists.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from distparity.releases.table import Row

__all__ = ["RUNNING", "choose", "refusal"]

RUNNING = f"3.{sys.version_info.minor}"


def choose(row: Row, forced: Sequence[str] = ()) -> str | None:
    """An interpreter for the row; None if this machine has none, or none of those ``forced``.

    It is :data:`RUNNING` if the row has wheels for it, else the newest one on this machine.
    """
    known = row.pythons or (RUNNING,)
    if forced:
        return forced[0] if all(_minor(p) in known and _is_here(p) for p in forced) else None
    if RUNNING in known:
        return RUNNING
    return next((python for python in reversed(known) if _is_here(python)), None)


def refusal(row: Row, python: str | None, chosen: str | None) -> str | None:
    """Why the row cannot run in ``python`` (None: in the ``chosen`` one); None if it can."""
    known = row.pythons or (RUNNING,)
    if python and _minor(python) not in known:
        having = f"Python {python} was requested"
    elif chosen is None:
        having = f"no Python {python} was found" if python else f"only Python {RUNNING} was found"
    else:
        return None
    what = f"torch {row.name}" if row.requirement else "the installed torch"
    return f"{what} supports Python {', '.join(known)}, but {having}"


def _minor(python: str) -> str:
    """``3.12`` for ``python3.12`` or ``3.12.1``; a word without a version is returned unchanged."""
    found = re.search(r"3\.\d+", python)
    return found[0] if found else python


@functools.cache
def _is_here(python: str) -> bool:
    if python == RUNNING:
        return True
    found = shutil.which(python) or shutil.which(f"python{python}")
    # A version manager's shim may exist without the interpreter.
    return found is not None and not subprocess.run([found, "-V"], capture_output=True).returncode  # noqa: PLW1510  a failure is the answer
