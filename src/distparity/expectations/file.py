"""Read an expectation file: TOML with a schema; every error names the file and the line."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from distparity.core import refusal
from distparity.core.naming import UPSTREAM
from distparity.core.outcome import FAILURES
from distparity.expectations.entry import PARTS, Entry
from distparity.expectations.pins import Pins, read, suffixed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["SHIPPED", "Expectations", "Wrong", "files_of", "load", "parse"]

#: The folder of the known defects of torch's releases that this version of distparity ships.
SHIPPED = Path(__file__).parent / "known_defects"
_HEAD = re.compile(r"^\s*\[\[\s*expect\s*\]\]\s*(#.*)?$")
_LOOKS = ("diagnosis", "quantity", "error")
#: The keys that identify each kind of failure: an entry must have one of them.
_KNOWN_BY: dict[str, tuple[str, ...]] = {
    "wrong numbers": ("diagnosis", "quantity", "checks"),
    "findings": ("diagnosis",),
    "raised": ("error",),
    "crash": ("error",),
    "timeout": (),
    "failed in one process": ("error",),
}
#: How a case ends without numbers. Where several ranks fail, it is a race which of these it is.
_ENDINGS = {"raised", "crash", "timeout"}


class Wrong(ValueError):
    """A file or an entry is invalid, or two entries conflict; the message names file and line."""


@dataclass(frozen=True)
class Expectations:
    """The entries of all files of a run."""

    entries: tuple[Entry, ...] = ()
    #: The name of each file, with the SHA-256 of its content.
    files: tuple[str, ...] = ()
    pins: Pins = field(default_factory=dict)


def load(paths: Sequence[Path], today: date | None = None) -> Expectations:
    """The entries of the files, in order; raises :class:`Wrong`, also for entries that have expired.

    A folder means all TOML files in it. The pins of a file are read with it.
    """
    entries: list[Entry] = []
    files: list[str] = []
    pins: Pins = {}
    for path in dict.fromkeys(file for given in paths for file in files_of(given)):
        try:
            held = path.read_bytes()
            text = held.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Wrong(f"{path}: cannot be read: {error}") from None
        if path.suffix == ".json":
            try:
                for cell, cases in read(text).items():
                    pins.setdefault(cell, {}).update(cases)
            except ValueError as error:
                raise Wrong(f"{_name(path)}: {error}") from None
        else:
            entries += parse(text, _name(path), today)
        files.append(f"{_name(path)} sha256:{hashlib.sha256(held).hexdigest()}")
    return Expectations(tuple(entries), tuple(files), pins)


def files_of(path: Path) -> list[Path]:
    """The file itself, or the TOML files in a folder, each with its pins where it has some.

    Raises :class:`Wrong` for a folder without a TOML file.
    """
    found = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not found:
        raise Wrong(f"{path}: this folder has no TOML file")
    return [one for file in found for one in (file, suffixed(file)) if one == file or one.is_file()]


def _name(path: Path) -> str:
    """The path as the user wrote it; for shipped files, their own names, wherever they are installed."""
    return f"{SHIPPED.name}/{path.name}" if path.parent == SHIPPED else str(path)


def parse(text: str, name: str, today: date | None = None) -> list[Entry]:
    """The entries in a file's text; ``name`` is the file's name in messages. Raises :class:`Wrong`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Wrong(f"{name}: {error}") from None
    except RecursionError:
        raise Wrong(f"{name}: it is nested too deeply to be read") from None
    unknown = sorted(set(data) - {"expect"})
    if unknown:
        raise Wrong(f"{name}: unknown key {unknown[0]!r}; there is only [[expect]]")
    tables = data.get("expect", [])
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _HEAD.match(line)]
    if not isinstance(tables, list) or len(lines) != len(tables):
        raise Wrong(f"{name}: every entry must begin with its own line [[expect]]")
    today = today or datetime.now(timezone.utc).date()
    return [
        _entry(table, f"{name}:{line}", today) for table, line in zip(tables, lines, strict=True)
    ]


def _entry(table: dict[str, Any], where: str, today: date) -> Entry:
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _KEYS:
            raise Wrong(f"{where}: unknown key {key!r}; known: {', '.join(_KEYS)}")
        try:
            values[key] = _KEYS[key](value)
        except (TypeError, ValueError, OverflowError, re.error) as error:
            raise Wrong(f"{where}: {key}: {error}") from None
        except RecursionError:
            raise Wrong(f"{where}: {key}: it is nested too deeply to be read") from None
    for key in ("reason", "link", "torch", "device", "failure"):
        if key not in values:
            raise Wrong(f"{where}: it has no {key}")
    _check_cases(values, where)
    _check_failure(values, where)
    expires = values.get("expires")
    if expires is not None and expires < today:
        raise Wrong(f"{where}: it expired on {expires}: check it again, then remove or renew it")
    patterns = {part: values.pop(part) for part in PARTS if part in values}
    looks: dict[str, re.Pattern[str]] = {key: values.pop(key) for key in _LOOKS if key in values}
    programs = values.pop("program", ())
    return Entry(
        where,
        failures=values.pop("failure"),
        patterns=patterns,
        looks=looks,
        programs=programs,
        **values,
    )


def _check_cases(values: dict[str, Any], where: str) -> None:
    patterns = [part for part in PARTS if part in values]
    if "cases" in values and patterns:
        raise Wrong(
            f"{where}: it has both cases (exact ids) and {patterns[0]} (a pattern): use one"
        )
    if "cases" not in values and not patterns:
        raise Wrong(f"{where}: it names no case: add cases, or any of {', '.join(PARTS)}")
    named = values.get("cases", values.get("scenario", ()))
    theirs = [name for name in named if name.removeprefix("!").startswith(UPSTREAM)]
    if theirs and len(theirs) < len(named):
        raise Wrong(f"{where}: it names torch's own tests and cases of distparity: use two entries")
    for part in ("world_size", "dtype"):
        if theirs and part in values:
            raise Wrong(f"{where}: torch's own tests have no {part}")


def _check_failure(values: dict[str, Any], where: str) -> None:
    failures = values["failure"]
    if len(failures) > 1 and not (_ENDINGS.issuperset(failures) and "undefined" in values):
        raise Wrong(
            f"{where}: several failures are for {', '.join(sorted(_ENDINGS))}, and need undefined:"
            " why nobody knows which of them comes"
        )
    for failure in failures:
        known_by = _KNOWN_BY[failure]
        if known_by and not any(key in values for key in known_by):
            raise Wrong(f"{where}: {failure}: it needs {' or '.join(known_by)}")
        for key in (*_LOOKS, "checks"):
            # A timeout may have an error. Where the device found something, numbers may be wrong besides.
            allowed = {"findings": ("diagnosis", "quantity")}.get(failure, known_by or ("error",))
            if key in values and key not in allowed:
                raise Wrong(f"{where}: {key} does not apply to {failure}")
        if values.get("not_run") and failure not in ("crash", "timeout"):
            raise Wrong(f"{where}: not_run is for a crash or a timeout; {failure} still runs")
    if values.get("not_run") and values.get("sometimes"):
        raise Wrong(f"{where}: sometimes and not_run exclude each other")


# -- one value of each key -------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("it is empty" if value == "" else "it must be a string that is not empty")
    return value.strip()


def _words(value: Any) -> tuple[str, ...]:
    words = value if isinstance(value, list) else [value]
    if not words:
        raise ValueError("it is empty")
    return tuple(_text(word) for word in words)


def _ids(value: Any) -> tuple[str, ...]:
    ids = _words(value)
    for one in ids:
        if re.fullmatch(r"[^/*?!]+/[^/*?!]+", one) is None:
            raise ValueError(f"{one!r} is not a case id like resume/fsdp2-ws2-float32")
    return ids


def _sizes(value: Any) -> tuple[str, ...]:
    sizes = value if isinstance(value, list) else [value]
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError("it must be a number of ranks, or a list of them")
    return tuple(str(size) for size in sizes)


def _range(value: Any) -> SpecifierSet:
    try:
        return SpecifierSet(_text(value))
    except InvalidSpecifier:
        raise ValueError(f"{value!r} is not a range of versions like '>=2.7,<2.9'") from None


def _facts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise ValueError("it must be a table of facts of the cell, like {device_name = 'Max 1*'}")
    for name, wanted in value.items():
        _text(wanted)
        if wanted.lstrip()[0] in "<>=~!":
            _range(wanted)
        _text(name)
    return dict(value)


def _failures(value: Any) -> tuple[str, ...]:
    failures = _words(value)
    for failure in failures:
        if failure not in FAILURES:
            raise ValueError(f"{failure!r} is not one of {', '.join(FAILURES)}")
    return failures


def _regex(value: Any) -> re.Pattern[str]:
    return refusal.pattern(_text(value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("it must be true or false")
    return value


def _link(value: Any) -> str:
    link = _text(value)
    parts = urlsplit(link)
    if parts.scheme not in ("https", "http") or not parts.netloc or re.search(r"\s", link):
        raise ValueError(f"{link!r} is not a URL")
    return link


def _date(value: Any) -> date:
    if isinstance(value, datetime) or not isinstance(value, date):
        raise TypeError("it must be a date without quotes: 2027-03-31")
    return value


def _programs(value: Any) -> tuple[str, ...]:
    programs = _words(value)
    for name in programs:
        if re.fullmatch(r"defects/(?:generated/|order/)?\w+\.py", name) is None:
            raise ValueError(f"{name!r} is not a program like defects/name.py")
    return programs


_KEYS: dict[str, Callable[[Any], Any]] = {
    "cases": _ids,
    "checks": _words,
    "scenario": _words,
    "strategy": _words,
    "world_size": _sizes,
    "dtype": _words,
    "device": _words,
    "torch": _range,
    "facts": _facts,
    "failure": _failures,
    "diagnosis": _regex,
    "quantity": _regex,
    "error": _regex,
    "not_run": _flag,
    "sometimes": _flag,
    "undefined": _text,
    "reason": _text,
    "link": _link,
    "expires": _date,
    "program": _programs,
}
