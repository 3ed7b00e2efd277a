"""Files without a name, through which processes pass what is too large for a message."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

__all__ = ["Spool", "Spools", "reserve"]

Made = TypeVar("Made")


def reserve(path: str, size: int) -> int:
    """Make room for ``size`` bytes at the end of a file to which other processes append too.

    Returns their place. Raises ``OSError`` if there is no space.
    """
    with Path(path).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        place = file.seek(0, os.SEEK_END)
        file.truncate(place + size)
    return place


class Spool:
    """A file that the controller makes in ``folder``, which is gone when it closes it or ends.

    :attr:`path` opens it in any process of the same user. The file has no name in the folder, so that
    nobody can put anything else in its place, and it survives the folder.
    """

    def __init__(self, folder: str) -> None:
        self._descriptor, name = tempfile.mkstemp(dir=folder, prefix="spool-")
        # Who removes the folder at this moment may have removed the name already.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108  a path of text is enough here
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        """Free its space; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            self.close()


class Spools:
    """The spool files of a run: :attr:`reference`, which all cases share, and one for each case."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @cached_property
    def reference(self) -> Spool:
        """The file with the oracles and the reference runs."""
        return self._make(Spool)

    def renew(self) -> None:
        """Begin another :attr:`reference`: nobody asks for what is in this one any more."""
        known = self.__dict__.pop("reference", None)
        if known is not None:
            known.close()

    def case(self) -> Spool:
        """A new file for one case; raises ``OSError``."""
        return self._make(Spool)

    def directory(self) -> tempfile.TemporaryDirectory[str]:
        """A new directory for one case; raises ``OSError``."""
        return self._make(lambda folder: tempfile.TemporaryDirectory(dir=folder))

    def _make(self, make: Callable[[str], Made]) -> Made:
        """Make something in the run's folder, or elsewhere if somebody has removed it."""
        try:
            return make(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return make(tempfile.gettempdir())
