"""The side file of a cell: one line of JSON for every result, written as soon as it is known.

Whatever happens to the process that runs pytest, its results so far are in this file, and
:mod:`distparity.results.junit_writer` makes the XML from it.

The first line is the header: the cell's facts, the command, the ids of all declared cases, and what
is known ``about`` each case before it runs, so that a case without a result has these facts too. Then
comes one line per outcome. The last line, if the run came to its end, says how it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distparity.core.outcome import Outcome, Status
from distparity.core.version import __version__

__all__ = ["SCHEMA", "Journal", "Record", "Taken", "paths", "place", "read"]

#: The schema of the side file and of the XML's properties; see ``docs/api.md``. A file without a number
#: has schema 1.
SCHEMA = 1

#: The most bytes of a cell's or device's name in a file name, which has at most 255 bytes in all.
_LONGEST = 100


def paths(folder: Path, torch: str, device: str, share: str = "") -> tuple[Path, Path]:
    """The paths of a cell's side file and XML file, or of those of a share such as ``1/4``."""
    stem = f"junit-{_safe(torch)}-{_safe(device)}"
    if share:
        stem += ".shard-" + share.replace("/", "-of-")
    return folder / f"{stem}.jsonl", folder / f"{stem}.xml"


def _safe(name: str) -> str:
    """``name`` as a part of a file name: it can neither lead out of the folder nor be too long."""
    safe = "".join(c if c.isalnum() or c in "._+=-" else "_" for c in name).lstrip(".") or "_"
    if len(safe.encode()) <= _LONGEST:
        return safe
    # The digest keeps two names apart that differ only in the part that is cut off.
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{safe.encode()[: _LONGEST - 9].decode('utf-8', 'ignore')}-{digest}"


def place(
    folder: Path, torch: str, device: str, *, part: bool, share: str = ""
) -> tuple[Path, Path]:
    """:func:`paths`, or paths in another folder if a report with more cases would be replaced.

    ``part`` says that this run has only a part of the cell's cases.
    """
    side, xml = paths(folder, torch, device, share)
    if part and _is_whole(side, xml):
        whole = folder.resolve()
        return paths(whole.with_name(f"{whole.name}-part"), torch, device)
    return side, xml


def _is_whole(side: Path, xml: Path) -> bool:
    """Whether there is a report of the whole cell: not of a part, nor of a cell that did not begin."""
    try:
        with side.open(encoding="utf-8", errors="replace") as file:
            header = json.loads(file.readline())["header"]
        return not header.get("part") and header["cases"] != [BROKEN]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return True
    except OSError:
        return xml.exists()


#: The case of a cell that did not begin.
BROKEN = "cell/start"


class Taken(Exception):
    """Another run is writing this side file."""


def _lock(path: Path) -> Any:
    """Open the side file and lock it for this process; raises :class:`Taken`."""
    while True:
        file = path.open("a+", encoding="utf-8", errors="surrogateescape")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file, contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                file.seek(0)
                pid = json.loads(file.readline())["header"]["pid"]
                raise Taken(f"{path} is being written by another run, process {pid}") from None
            raise Taken(f"{path} is being written by another run") from None
        except OSError:
            # A file system without locks.
            return file
        # Somebody may have removed the file between the two calls.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


class Journal:
    """Writes one cell's side file, and removes the files of an earlier run of the cell.

    Raises :class:`Taken` if another run is writing it; that file is then not changed.

    With ``resumed``, it goes on after the last line of that file, and ``resumed`` says how.

    If the disk is full or gone, the run goes on: :attr:`error` has the reason, every line is kept in
    memory, and :meth:`save` writes them elsewhere.
    """

    def __init__(
        self, path: Path, xml: Path, header: dict[str, Any], resumed: dict[str, Any] | None = None
    ) -> None:
        self._file = _lock(path)
        xml.unlink(missing_ok=True)
        self.path = path
        self.xml = xml
        self.error: OSError | None = None
        self._lines: list[str] = []
        about = {"schema": SCHEMA, **header, "pid": os.getpid(), "started": time.time()}
        if resumed is None:
            self._file.truncate(0)
            self._line({"header": about})
        else:
            # Nothing is removed, so that the results so far are there whatever happens.
            self._file.seek(0)
            self._lines = [self._file.read(), "\n"]
            self._file.write("\n")
            self._line({"resumed": resumed, "at": time.time()})

    def add(self, case: str, outcome: Outcome) -> None:
        """Write the line of an outcome."""
        self._line({"case": case, "outcome": outcome.to_json(), "at": time.time()})

    def end(self, reason: str, facts: dict[str, Any] | None = None) -> None:
        """Write the last line: "finished", or why some cases have no result.

        ``facts`` are facts of the run that are known only at its end.
        """
        self._line({"end": reason, "at": time.time(), "facts": facts or {}})
        with contextlib.suppress(OSError):
            self._file.close()

    def save(self, path: Path) -> None:
        """Write all lines to ``path``; raises ``OSError``."""
        # What a run went on after may have bytes that are no text.
        path.write_text("".join(self._lines), encoding="utf-8", errors="surrogateescape")

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
    """A side file that was read. ``outcomes`` has every declared case, in the declared order.

    ``done`` are the results as they were written, without what the header has about the case.
    """

    header: dict[str, Any]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    done: dict[str, Outcome] = field(default_factory=dict)
    ended: str | None = None
    seconds: float = 0.0


def read(path: Path) -> Record:
    """Read a side file; a declared case without a result is *missing*.

    Raises ``ValueError`` if the file does not begin with a header, or has another schema. Any other
    line that cannot be read, because the writer died or the file is damaged, is skipped.
    """
    with path.open("rb") as file:
        first = file.readline()
        header = _header(path, first)
        record = Record(header)
        found: dict[str, Outcome] = {}
        end, last, paused = path.stat().st_mtime, float(header["started"]), 0.0
        for data in _lines(file):
            # The line is damaged, but still JSON.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                if "case" in data:
                    found[data["case"]] = Outcome.from_json(data["outcome"])
                    record.done[data["case"]] = found[data["case"]]
                elif "resumed" in data:
                    record.ended, paused = None, paused + float(data["at"]) - last
                    how = (
                        f"after {int(data['resumed']['results'])} of {len(header['cases'])} results"
                    )
                    before = header["facts"].get("resumed")
                    header["facts"]["resumed"] = f"{before}, {how}" if before else how
                    end = path.stat().st_mtime
                elif "end" in data:
                    facts = {**header.get("facts", {}), **data.get("facts", {})}
                    record.ended, end, header["facts"] = str(data["end"]), float(data["at"]), facts
                last = float(data["at"])
    why = record.ended or "the process that ran the suite died"
    gone = Outcome(Status.MISSING, f"no result: {why}")
    about = header.get("about", {})
    for case in header["cases"]:
        outcome = found.get(case, gone)
        record.outcomes[case] = replace(outcome, facts={**about.get(case, {}), **outcome.facts})
    record.seconds = max(0.0, end - header["started"] - paused)
    return record


def _header(path: Path, line: bytes) -> dict[str, Any]:
    """Read and check the first line."""
    wrong = ValueError(f"{path} is not a side file of distparity: it has no header")
    try:
        header = json.loads(line.decode("utf-8", "replace"))["header"]
        schema = header.get("schema", SCHEMA)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise wrong from None
    if schema != SCHEMA:
        raise ValueError(
            f"{path} has schema {schema!r}; distparity {__version__} reads schema {SCHEMA}"
        )
    try:
        cases, cell, facts = header["cases"], header["cell"], header.get("facts", {})
        about = header.get("about", {})
        right = (
            all(isinstance(case, str) for case in cases)
            and all(isinstance(cell[part], str) for part in ("torch", "device"))
            and isinstance(facts, dict)
            and all(isinstance(about.get(case, {}), dict) for case in cases)
        )
        float(header["started"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise wrong from None
    if not right:
        raise wrong
    found: dict[str, Any] = header
    return found


def _lines(file: Any) -> Iterator[dict[str, Any]]:
    for line in file:
        with contextlib.suppress(ValueError, RecursionError):
            data = json.loads(line.decode("utf-8", "replace"))
            if isinstance(data, dict):
                yield data
