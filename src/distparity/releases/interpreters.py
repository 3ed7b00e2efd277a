"""Which Python on this machine a row of the matrix can have.

It needs only the standard library: the noxfile asks before there is any environment.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from distparity.releases.table import Row

__all__ = ["RUNNING", "choose", "refusal"]

RUNNING = f"3.{sys.version_info.minor}"


def choose(row: Row, forced: Sequence[str] = ()) -> str | None:
    """An interpreter for the row; None where there is none, or not those that are ``forced``.

    It is :data:`RUNNING` where the row has wheels for that, else the newest that is here.
    """
    known = row.pythons or (RUNNING,)
    if forced:
        return forced[0] if all(_minor(p) in known and _is_here(p) for p in forced) else None
    if RUNNING in known:
        return RUNNING
    return next((python for python in reversed(known) if _is_here(python)), None)


def refusal(row: Row, python: str | None, chosen: str | None) -> str | None:
    """Why the row cannot run in ``python`` (None: in what was ``chosen``); None when it can."""
    known = row.pythons or (RUNNING,)
    if python and _minor(python) not in known:
        having = f"Python {python} was asked for"
    elif chosen is None:
        having = f"Python {python} is not here" if python else f"only Python {RUNNING} is here"
    else:
        return None
    what = f"torch {row.name}" if row.requirement else "the torch that is here"
    return f"{what} is for Python {' '.join(known)}, and {having}"


def _minor(python: str) -> str:
    """``3.12`` of ``python3.12`` or ``3.12.1``; what names no version is left as it is."""
    found = re.search(r"3\.\d+", python)
    return found[0] if found else python


def _is_here(python: str) -> bool:
    if python == RUNNING:
        return True
    found = shutil.which(python) or shutil.which(f"python{python}")
    # A version manager's shim may stand for an interpreter that is not there.
    return found is not None and not subprocess.run([found, "-V"], capture_output=True).returncode  # noqa: PLW1510  a failure is the answer
