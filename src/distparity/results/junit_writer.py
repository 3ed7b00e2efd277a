"""Write JUnit XML from a cell's side file.

The form follows what consumers read. The cell is in the file's name, the suite's name and its
properties. The test ids (``classname`` and ``name``) are the same in every cell. The reason of a skip or
failure is both in ``message`` and in the text, because some consumers read only one of them. The facts
of a case are properties.

This module and its imports need only the standard library: the noxfile uses it to report an error in
the cell even if torch could not be installed.
"""

from __future__ import annotations

import json
import re
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from distparity.core.outcome import Outcome, Status
from distparity.core.statuses import BY_NAME
from distparity.core.version import __version__, source
from distparity.results.journal import BROKEN, SCHEMA, Journal, Record, place, read

__all__ = ["statuses", "write_broken_cell", "write_from_journal"]

#: GitLab refuses files larger than 30 MB, and one character takes up to six bytes (``&quot;``). So the
#: details of all cases of a cell have at most this many characters together, shared equally. The side
#: file has them in full.
ACCOUNTS = 4_000_000
LARGEST_ACCOUNT = 200_000
_LARGEST_MESSAGE = 4_000
#: Characters that XML 1.0 cannot represent at all.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_from_journal(path: str | Path) -> Path:
    """Write the XML file next to a side file; returns its path.

    Raises ``ValueError`` if ``path`` is not a side file, and ``OSError`` if it cannot be read or the
    XML cannot be written.
    """
    path = Path(path)
    root = _document(read(path))
    target = path.with_suffix(".xml")
    # Write to another name first, so that nobody ever sees half a file.
    partial = target.with_suffix(".xml.part")
    try:
        ET.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def statuses(path: Path) -> dict[str, str]:
    """The status of each case in an XML file of ours, by the case's id."""
    found = {}
    for case in ET.parse(path).iter("testcase"):  # noqa: S314  it is our own
        status = case.find("properties/property[@name='status']")
        scenario = case.attrib["classname"].removeprefix("distparity.")
        name = f"{scenario}/{case.attrib['name']}"
        found[name] = "none" if status is None else status.attrib["value"]
    return found


def write_broken_cell(
    folder: Path,
    torch: str,
    device: str,
    message: str,
    detail: str,
    facts: dict[str, Any],
    *,
    part: bool = False,
) -> Path:
    """Write the XML of a cell that could not begin, with one error.

    With ``part``, only a part of its cases was requested, and a report of the whole cell is kept.
    Raises :class:`~distparity.results.journal.Taken` while another run is writing it.
    """
    journal_path, xml = place(folder, torch, device, part=part)
    journal_path.parent.mkdir(parents=True, exist_ok=True)
    header = {"cell": {"torch": torch, "device": device}, "facts": facts, "cases": [BROKEN]}
    journal = Journal(journal_path, xml, header)
    journal.add(BROKEN, Outcome(Status.ERROR, message, detail))
    journal.end("finished")
    return write_from_journal(journal_path)


def _document(record: Record) -> ET.Element:
    cell = record.header["cell"]
    # A flaky case that is allowed is not a failure, but it is not a pass either.
    allowed = bool(record.header.get("allow_flaky"))
    suite_name = f"distparity torch {cell['torch']} {cell['device']}"
    tags = [_element(outcome, allowed=allowed) for outcome in record.outcomes.values()]
    counts = {
        "tests": str(len(tags)),
        "failures": str(tags.count("failure")),
        "errors": str(tags.count("error")),
        "skipped": str(tags.count("skipped")),
        "time": f"{record.seconds:.3f}",
    }
    root = ET.Element("testsuites", {"name": "distparity", **counts})
    started = datetime.fromtimestamp(_seconds(record.header["started"]), timezone.utc)
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": _text(suite_name),
            **counts,
            "timestamp": started.isoformat(timespec="seconds"),
            "hostname": _text(socket.gethostname()),
        },
    )
    facts = {
        "distparity.cell": f"{cell['torch']}-{cell['device']}",
        "distparity.cell_torch": cell["torch"],
        "distparity.device": cell["device"],
        "distparity.version": __version__,
        **({"distparity.source": address} if (address := source()) else {}),
        "distparity.schema": str(SCHEMA),
        **{f"distparity.{key}": value for key, value in record.header["facts"].items()},
        "distparity.ended": record.ended or "died",
    }
    _properties(suite, facts)
    tagged = sum(tag is not None for tag in tags)
    most = min(LARGEST_ACCOUNT, ACCOUNTS // max(1, tagged))
    for case, outcome in record.outcomes.items():
        _testcase(suite, case, outcome, _element(outcome, allowed=allowed), most)
    ET.indent(root)
    return root


def _element(outcome: Outcome, *, allowed: bool) -> str | None:
    """The name of the element inside a case, or None."""
    drawing = BY_NAME[outcome.status.value]
    return drawing.allowed if allowed and drawing.allowed else drawing.element


def _testcase(suite: ET.Element, case: str, outcome: Outcome, tag: str | None, most: int) -> None:
    scenario, _, name = case.partition("/")
    element = ET.SubElement(
        suite,
        "testcase",
        {
            "classname": _text(f"distparity.{scenario}"),
            "name": _text(name),
            "time": f"{_seconds(outcome.facts.get('seconds_in_ranks')):.4f}",
        },
    )
    # The growth of the ratio over the steps is a table, which the detail of a failure has.
    facts = {name: value for name, value in outcome.facts.items() if name != "growth"}
    _properties(element, {"status": outcome.status.value, **facts, **_failure(outcome)})
    if tag is not None:
        message = f"{outcome.status.value}: {outcome.message}"
        child = ET.SubElement(
            element,
            tag,
            {
                "message": _cut(_text(message), _LARGEST_MESSAGE),
                "type": f"distparity.{outcome.status.value}",
            },
        )
        child.text = _cut(_text("\n".join(filter(None, [message, outcome.detail]))), most)


def _seconds(value: Any) -> float:
    """A number from a file that may be damaged."""
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e11 else 0.0


def _failure(outcome: Outcome) -> dict[str, str]:
    """How a case failed, for programs: strings, and structured values as JSON."""
    found = {"failure": outcome.failure} if outcome.failure else {}
    if outcome.first is not None:
        found["first_divergence"] = json.dumps(outcome.first.to_json())
    if outcome.diverged:
        found["diverged"] = json.dumps(outcome.diverged)
    if outcome.marks:
        found["marks"] = json.dumps([mark.to_json() for mark in outcome.marks])
    return found


def _properties(parent: ET.Element, values: dict[str, Any]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in values.items():
        text = _text(_plain(value))
        ET.SubElement(properties, "property", {"name": _text(name), "value": text})


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_plain(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    """``text`` with characters that XML cannot represent spelled out."""
    return _ILLEGAL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _cut(text: str, most: int) -> str:
    """``text``, or its beginning and end with a note of what is omitted between them."""
    if len(text) <= most:
        return text
    half = most // 2
    gap = f"[{len(text) - 2 * half:,} characters omitted here; the side file has them]"
    return f"{text[:half]}\n{gap}\n{text[-half:]}"
