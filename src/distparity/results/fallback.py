"""Write the XML of a side file: into its own folder, or where there is still space."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from distparity.results import junit_writer
from distparity.results.journal import Journal

__all__ = ["write"]


def write(journal: Journal) -> tuple[Path | None, str]:
    """Write the XML of a side file; if its folder cannot be written, in a new folder elsewhere.

    Returns the XML's path (None if it could not be written anywhere), and a complaint or "".
    """
    try:
        if journal.error is not None:
            raise journal.error
        return junit_writer.write_from_journal(journal.path), ""
    except OSError as error:
        lost = f"the reports could not be written to {journal.path.parent} ({error})"
    for place in (tempfile.gettempdir, Path.cwd, Path.home, lambda: "/dev/shm"):  # noqa: S108  the last resort
        found = _saved(journal, place)
        if found is not None:
            return found, f"{lost}; they are in {found.parent}"
    return None, f"{lost}, nor anywhere else: only this terminal shows the results"


def _saved(journal: Journal, place: Callable[[], str | Path]) -> Path | None:
    """Write the XML into a new folder in ``place()``; None, and nothing is left, if that fails."""
    try:
        # On a full disk, to ask for the folder of temporary files fails as well.
        folder = Path(tempfile.mkdtemp(prefix="distparity-reports-", dir=place()))
    except (OSError, RuntimeError):
        return None
    copy = folder / journal.path.name
    try:
        journal.save(copy)
        return junit_writer.write_from_journal(copy)
    except OSError:
        # Listing the folder would need a file descriptor, and there may be none.
        with contextlib.suppress(OSError):
            copy.unlink(missing_ok=True)
            folder.rmdir()
        return None
