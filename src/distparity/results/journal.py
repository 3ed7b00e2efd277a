"""The side file of a cell: a line of JSON for every result, written the moment it is known.

Whatever becomes of the process that runs pytest, the results that it had are in this file, and
:mod:`distparity.results.junit_writer` makes the XML from it.

The first line is the header: the cell's facts, the command, the ids of all declared cases, and what
is known ``about`` a case before it runs, so that a case without a result has these facts too. Then
comes a line for each outcome, and last, when the run came to its end, a line that says how.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distparity.core.outcome import Outcome, Status
from distparity.core.version import __version__

__all__ = ["SCHEMA", "Journal", "Record", "paths", "read"]

#: The form of the side file and of the XML's properties, as ``docs/api.md`` has it. Files from before
#: there was a number are of the first.
SCHEMA = 1

#: Bytes of a cell's or device's name that go into a file's name, which has at most 255 in all.
_LONGEST = 100


def paths(folder: Path, torch: str, device: str) -> tuple[Path, Path]:
    """The side file and the XML file of a cell."""
    stem = f"junit-{_safe(torch)}-{_safe(device)}"
    return folder / f"{stem}.jsonl", folder / f"{stem}.xml"


def _safe(name: str) -> str:
    """``name`` as a part of one file's name: it can neither leave the folder nor be too long."""
    safe = "".join(c if c.isalnum() or c in "._+-" else "_" for c in name).lstrip(".") or "_"
    if len(safe.encode()) <= _LONGEST:
        return safe
    # What was cut off still tells two names apart.
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{safe.encode()[: _LONGEST - 9].decode('utf-8', 'ignore')}-{digest}"


class Journal:
    """Writes one cell's side file; removes what an earlier run left for the cell.

    A disk that is full, or gone, ends no run: what could not be written is in :attr:`error`, every
    line is kept, and :meth:`save` puts them all elsewhere.
    """

    def __init__(self, path: Path, xml: Path, header: dict[str, Any]) -> None:
        xml.unlink(missing_ok=True)
        self.path = path
        self.xml = xml
        self.error: OSError | None = None
        self._lines: list[str] = []
        self._file = path.open("w", encoding="utf-8")
        self._line({"header": {"schema": SCHEMA, **header, "started": time.time()}})

    def add(self, case: str, outcome: Outcome) -> None:
        self._line({"case": case, "outcome": outcome.to_json(), "at": time.time()})

    def end(self, reason: str, facts: dict[str, Any] | None = None) -> None:
        """Say that no more results come: "finished", or why not all did.

        ``facts`` are the run's, as those in the header are, and known only now.
        """
        self._line({"end": reason, "at": time.time(), "facts": facts or {}})
        with contextlib.suppress(OSError):
            self._file.close()

    def save(self, path: Path) -> None:
        """Write all lines to ``path``; raises ``OSError``."""
        path.write_text("".join(self._lines), encoding="utf-8")

    def _line(self, data: dict[str, Any]) -> None:
        line = json.dumps(data) + "\n"
        self._lines.append(line)
        if self.error is not None:
            return
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self.error = error


@dataclass
class Record:
    """A side file, read back. ``outcomes`` has every declared case, in the declared order."""

    header: dict[str, Any]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    ended: str | None = None
    seconds: float = 0.0


def read(path: Path) -> Record:
    """Read a side file; a case that was declared and has no result is *missing*.

    Raises ``ValueError`` when the file does not begin with a header, or is of another schema. A last
    line that was cut off (the writer died in it) is passed over.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        header = json.loads(lines[0])["header"]
    except (IndexError, ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no side file of distparity: it has no header") from None
    if (schema := header.get("schema", SCHEMA)) != SCHEMA:
        raise ValueError(
            f"{path} has schema {schema!r}; distparity {__version__} reads schema {SCHEMA}"
        )
    record = Record(header)
    found: dict[str, Outcome] = {}
    end = path.stat().st_mtime
    for line in lines[1:]:
        try:
            data = json.loads(line)
        except ValueError:
            continue
        if "case" in data:
            found[data["case"]] = Outcome.from_json(data["outcome"])
        elif "end" in data:
            record.ended = data["end"]
            end = data["at"]
            header["facts"] = {**header.get("facts", {}), **data.get("facts", {})}
    why = record.ended or "the process that ran the suite died"
    gone = Outcome(Status.MISSING, f"no result: {why}")
    about = header.get("about", {})
    for case in header["cases"]:
        outcome = found.get(case, gone)
        record.outcomes[case] = replace(outcome, facts={**about.get(case, {}), **outcome.facts})
    record.seconds = max(0.0, end - header["started"])
    return record
