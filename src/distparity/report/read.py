"""Read cells from XML files. Everything is checked here; errors name the file and the fault.

The files come from other machines. Document types and entities are refused outright (entity bombs
and references to other files need them), sizes are bounded, long texts are cut in the middle with a
line that says so, and nothing in a file is treated as markup.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException
from junitparser import Attr, JUnitXml, JUnitXmlError, Properties, TestCase, TestSuite
from junitparser.junitparser import Element

from distparity.core.marks import Mark
from distparity.core.statuses import BY_NAME, PASSED
from distparity.core.version import __version__
from distparity.report.model import CaseRow, Column, Result, shorten
from distparity.results.journal import SCHEMA

__all__ = ["Refused", "files", "plain", "read"]

#: A cell of 2,000 cases takes about 2 MB; a larger file than this is not one of ours.
LARGEST_FILE = 256 * 2**20
LARGEST_DETAIL = 20_000
LARGEST_MESSAGE = 2_000
LARGEST_NAME = 300
#: Seconds: no run takes thirty years.
LONGEST = 1e9
PREFIX = "distparity."
#: Characters that terminals and browsers interpret and do not show: controls and direction marks.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_PARTS = re.compile(r"(?P<strategy>.+)-ws(?P<world_size>\d+)-(?P<dtype>[^-]+)")
#: Properties of a case that have their own field in :class:`Result` or :class:`CaseRow`.
_PLACED = {
    *("status", "family", "scenario", "strategy", "world_size", "dtype"),
    *("ratio", "largest_error", "seconds_in_ranks", "rerun", "diagnosis"),
    *("failure", "diverged", "marks", "scenario_source", "strategy_source"),
}


class _Case(TestCase):
    """A case that keeps its time as text: the base class would convert it, with poor error messages."""

    time = Attr()


class _Suite(TestSuite):
    """A suite that keeps the file's counts: the base class would replace them by its own."""

    testcase = _Case
    tests = Attr()
    time = Attr()


class _Document(JUnitXml):
    testsuite = _Suite


class Refused(Exception):
    """A file is invalid, or two contradict each other; the message names them."""


def files(sources: Iterable[Path]) -> list[Path]:
    """The XML files of ``sources``: the named files, and all ``*.xml`` in the named folders.

    Raises :class:`Refused` for a path that does not exist, and if there is no XML file at all.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            found.update(dict.fromkeys(sorted(source.rglob("*.xml"))))
        elif source.exists():
            found[source] = None
        else:
            raise Refused(f"{source}: no such file or folder")
    if not found:
        raise Refused(f"{', '.join(map(str, sources))}: no XML file")
    return list(found)


def read(path: Path) -> list[Column]:
    """The cells of one file, in its order; usually one, unless a tool has merged files.

    Raises :class:`Refused`.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise Refused(f"{path}: larger than {LARGEST_FILE // 2**20} MiB")
        suites = _Document.fromfile(str(path), parse_func=_parse)
        columns = [_column(path, suite) for suite in suites]
    except DefusedXmlException as error:
        kind = type(error).__name__
        raise Refused(f"{path}: hostile XML ({kind}): it declares entities or a DTD") from None
    except (ParseError, UnicodeError, LookupError, ValueError) as error:
        raise Refused(f"{path}: truncated, or not XML: {error}") from None
    except RecursionError:
        raise Refused(f"{path}: hostile XML: nested too deeply") from None
    except JUnitXmlError:
        raise Refused(f"{path}: not JUnit XML") from None
    except OSError as error:
        raise Refused(f"{path}: {error.strerror or error}") from None
    if not columns:
        raise Refused(f"{path}: it has no test suite")
    return columns


def _parse(source: str) -> object:
    return defusedxml.ElementTree.parse(source, forbid_dtd=True)


def _column(path: Path, suite: TestSuite) -> Column:
    facts = dict(_properties(suite))
    for name in ("distparity.cell", "distparity.cell_torch", "distparity.device"):
        if name not in facts:
            raise Refused(
                f"{path}: not the XML of a cell of distparity: its suite has no property {name!r}"
            )
    schema = facts.get("distparity.schema", str(SCHEMA))
    if schema != str(SCHEMA):
        raise Refused(
            f"{path}: it has schema {plain(schema)}; distparity {__version__} reads schema {SCHEMA}"
        )
    if "distparity.shard" in facts:
        raise Refused(
            f"{path}: it is share {plain(facts['distparity.shard'])} of a cell: join all shares with "
            "distparity junit --join"
        )
    column = Column(
        name=plain(facts["distparity.cell"]),
        torch=plain(facts["distparity.cell_torch"]),
        device=plain(facts["distparity.device"]),
        facts={
            plain(name.removeprefix(PREFIX)): _text(value, LARGEST_MESSAGE)
            for name, value in facts.items()
        },
        started=plain(suite.timestamp or ""),
        host=plain(suite.hostname or ""),
        seconds=_seconds(path, suite.time),
        files=[str(path)],
    )
    for element in suite:
        case, result = _case(path, element)
        if case in column.results:
            raise Refused(f"{path}: it has the case {case.id!r} twice")
        column.results[case] = result
    if suite.tests != str(len(column.results)):
        promised = plain(str(suite.tests))
        raise Refused(
            f"{path}: truncated, or edited: tests={promised}, and {len(column.results)} cases"
        )
    return column


def _properties(element: Element) -> Iterator[tuple[str, str]]:
    for one in Properties.fromelem(element.child(Properties)) or ():
        yield str(one.name), str(one.value if one.value is not None else "")


def _case(path: Path, element: TestCase) -> tuple[CaseRow, Result]:
    facts = dict(_properties(element))
    scenario = plain((element.classname or "").removeprefix(PREFIX))
    name = plain(element.name or "")
    where = f"{path}: case {scenario}/{name}"
    parts = _PARTS.fullmatch(name)
    # A case that never ran has no facts of its own; its name has them.
    facts = {**(parts.groupdict() if parts else {}), **facts}
    world = facts.get("world_size", "")
    case = CaseRow(
        scenario,
        name,
        strategy=plain(facts.get("strategy", "")),
        world_size=int(world) if re.fullmatch("[0-9]{1,6}", world) else None,
        dtype=plain(facts.get("dtype", "")),
        family=plain(facts.get("family", "")),
    )
    status = _status(where, facts, element)
    message, detail = _texts(status, element)
    ratio = _number(where, "ratio", facts.get("ratio"))
    if status == PASSED.name and ratio is not None and ratio > 1:
        raise Refused(f"{where}: its status is passed, but its ratio is {facts['ratio'].strip()}")
    return case, Result(
        status=status,
        message=message,
        detail=detail,
        diagnosis=_text(facts.get("diagnosis", ""), LARGEST_MESSAGE),
        ratio=ratio,
        error=_number(where, "largest_error", facts.get("largest_error")),
        seconds=_seconds(where, element.time),
        rerun=_text(facts.get("rerun", ""), LARGEST_MESSAGE),
        failure=plain(facts.get("failure", "")),
        diverged=_diverged(where, facts.get("diverged", "[]")),
        marks=_marks(where, facts.get("marks", "[]")),
        sources=(
            plain(facts.get("scenario_source", "")),
            plain(facts.get("strategy_source", "")),
        ),
        more={
            plain(name): _text(value, LARGEST_DETAIL)
            for name, value in facts.items()
            if name not in _PLACED
        },
    )


def _status(where: str, facts: dict[str, str], element: TestCase) -> str:
    if "status" not in facts:
        raise Refused(f"{where}: it has no property 'status'")
    status = facts["status"]
    if status not in BY_NAME:
        raise Refused(f"{where}: unknown status {plain(status)!r}; known: {', '.join(BY_NAME)}")
    held = [f"<{one._tag}>" for one in element.result]  # noqa: SLF001 - no public name
    drawing = BY_NAME[status]
    known = [f"<{tag}>" for tag in (drawing.element, drawing.allowed) if tag is not None]
    if held not in ([[tag] for tag in known] or [[]]):
        what = " and ".join(f"a {one}" for one in held) or f"no {known[0]}"
        raise Refused(f"{where}: its status is {status}, but it has {what}")
    return status


def _texts(status: str, element: TestCase) -> tuple[str, str]:
    """The message, and the detail without that line."""
    child = next(iter(element.result), None)
    if child is None:
        return "", ""
    message = str(child.message or "")
    detail = str(child.text or "").strip("\n")
    prefix = f"{status}: "
    for line in (message, message.removeprefix(prefix)):
        # The detail repeats the message, for consumers that read only one of them.
        detail = detail.removeprefix(line).lstrip("\n")
    line = message.removeprefix(prefix)
    return _text(line, LARGEST_MESSAGE), _text(detail, LARGEST_DETAIL)


def _number(where: str | Path, name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise Refused(f"{where}: {name} is not a number: {plain(text)!r}") from None
    if value < 0:
        raise Refused(f"{where}: {name} is negative: {plain(text)!r}")
    # NaN compares as false with everything, so it becomes infinity.
    return math.inf if math.isnan(value) else value


def _diverged(where: str, text: str) -> tuple[str, ...]:
    """The names of checks, from a list in JSON."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Refused(f"{where}: diverged is not a list of names: {plain(text)!r}")
    return tuple(_text(one, LARGEST_NAME) for one in found)


def _marks(where: str, text: str) -> tuple[Mark, ...]:
    try:
        return tuple(map(Mark.from_json, json.loads(text)))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Refused(f"{where}: marks is no list of marks: {plain(text)!r}") from None


def _seconds(where: str | Path, text: str | None) -> float:
    value = _number(where, "time", text or "0") or 0.0
    if value > LONGEST:
        raise Refused(f"{where}: time is not a number of seconds: {plain(str(text))!r}")
    return value


def plain(text: str) -> str:
    """``text`` on one line, shortened, with invisible characters spelled out."""
    return _text(" ".join(text.split()), LARGEST_NAME)


def _text(text: str, limit: int) -> str:
    """``text``, shortened, with invisible characters spelled out."""
    seen = _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shorten(seen, limit)
