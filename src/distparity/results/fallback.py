"""A side file made into XML: in its own folder, or where there is still room for it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from distparity.results import junit_writer
from distparity.results.journal import Journal

__all__ = ["write"]


def write(journal: Journal) -> tuple[Path | None, str]:
    """Make a side file into XML; where its folder takes no more, in a new folder of another place.

    Returns its path, None where no place took it, and what there is to complain of.
    """
    try:
        if journal.error is not None:
            raise journal.error
        return junit_writer.write_from_journal(journal.path), ""
    except OSError as error:
        lost = f"the reports could not be written to {journal.path.parent} ({error})"
    for place in (Path(tempfile.gettempdir()), Path.cwd(), Path.home(), Path("/dev/shm")):  # noqa: S108  the last resort
        found = _saved(journal, place)
        if found is not None:
            return found, f"{lost}; they are in {found.parent}"
    return None, f"{lost}, nor anywhere else; what is told here is all there is"


def _saved(journal: Journal, place: Path) -> Path | None:
    """The XML in a new folder of ``place``; None, and nothing left, where that takes none."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="distparity-reports-", dir=place))
    except OSError:
        return None
    try:
        journal.save(folder / journal.path.name)
        return junit_writer.write_from_journal(folder / journal.path.name)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        return None
