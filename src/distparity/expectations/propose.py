"""Propose entries for the failures in a result file, for a person to check, narrow and explain.

Cases that failed in the same way make one entry. It names them by patterns if those match exactly
these cases of the file, otherwise by their ids.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, product, zip_longest
from typing import Any

from distparity.core.case import Case
from distparity.core.naming import UPSTREAM, device_of

__all__ = ["Failed", "as_proposals", "propose"]

_PARTS: tuple[tuple[str, Callable[[Case], Any]], ...] = (
    ("scenario", lambda case: case.scenario),
    ("strategy", lambda case: case.strategy),
    ("world_size", lambda case: case.world_size),
    ("dtype", lambda case: case.dtype),
)
_NUMBER = re.compile(r"\d[\d.]*(?:e[-+]?\d+)?")
#: The comment above entries that have no reason yet.
_UNREAD = (
    "These are proposals. To use one, check it, add a reason and a link, and remove the # from the",
    "beginning of its lines.",
)
#: The most characters of an error that a proposal quotes: enough to tell it from others.
_LONGEST = 160


@dataclass(frozen=True)
class Failed:
    """How one case failed. ``failure`` is of :data:`distparity.core.outcome.FAILURES`."""

    failure: str
    message: str
    diagnosis: str = ""
    #: The checks of an operation that diverged; empty for training.
    checks: tuple[str, ...] = ()

    @property
    def looks(self) -> tuple[str, str | tuple[str, ...]]:
        """The entry's key that identifies the failure, and its value: a regular expression, or checks."""
        if self.failure == "findings":
            return "diagnosis", f"^{_pattern(self.diagnosis)}"
        if self.failure != "wrong numbers":
            return "error", _pattern(self.message)
        if self.checks:
            return "checks", tuple(glob.escape(check) for check in self.checks)
        if self.diagnosis:
            return "diagnosis", f"^{_pattern(self.diagnosis)}"
        # "step 0, gradient 'weight', rank 0: ..." is identified by the kind of quantity.
        found = re.match(r"(?:[^,]*, )?(\w+)", self.message)
        return "quantity", rf"\b{found[1]}\b" if found else "."

    @property
    def kind(self) -> str:
        """The kind of failure, in one line: one reason can explain only failures of one kind."""
        looks, value = self.looks
        said = value if isinstance(value, str) else ", ".join(value)
        return f"{self.failure}, {looks} {said}"


def propose(
    failed: Mapping[Case, Failed], cases: Iterable[Case], torch: str, reason: str, link: str
) -> list[str]:
    """The TOML text of each entry. ``cases`` are all of the file's, ``torch`` is its release."""
    groups: dict[tuple[Any, ...], list[Case]] = {}
    for case, one in failed.items():
        groups.setdefault((case.device, one.failure, *one.looks), []).append(case)
    everything = set(cases)
    return [
        "\n".join(_entry(group, key, everything, torch, reason, link)) + "\n"
        for key, group in groups.items()
    ]


def as_proposals(entries: Iterable[str]) -> str:
    """The entries without a reason, as comments, so that they are not loaded."""
    lines = "\n".join(["\n".join(_UNREAD) + "\n", *entries]).splitlines()
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _entry(
    group: list[Case],
    key: tuple[Any, ...],
    everything: set[Case],
    torch: str,
    reason: str,
    link: str,
) -> Iterator[str]:
    device, failure, looks, value = key
    yield "[[expect]]"
    yield from _cases(group, everything)
    yield f"device = {_quoted(device_of(device))}"
    if device != device_of(device) and not group[0].scenario.startswith(UPSTREAM):
        # Another backend, or other arithmetic, may be right.
        yield f"facts = {{ device = {_quoted(device)} }}"
    yield f"torch = {_quoted(f'=={torch}')}"
    yield f"failure = {_quoted(failure)}"
    yield f"{looks} = {_quoted(value)}"
    yield f"reason = {_quoted(reason)}"
    yield f"link = {_quoted(link)}"


def _cases(group: list[Case], everything: set[Case]) -> Iterator[str]:
    """Name the cases of a group by patterns if those match exactly the group, else by ids."""
    values = [list(dict.fromkeys(part(case) for case in group)) for _, part in _PARTS]
    device = group[0].device
    meant = {Case(s, t, w, d, device) for s, t, w, d in product(*values)}
    if len(group) > 1 and meant & everything == set(group):
        for (name, _), found in zip(_PARTS, values, strict=True):
            if any(found):
                yield f"{name} = {_quoted(found[0] if len(found) == 1 else found)}"
    else:
        yield "cases = ["
        yield from (f"  {_quoted(case.id)}," for case in group)
        yield "]"


def _pattern(text: str) -> str:
    """A regular expression for the beginning of a text, with any numbers in it."""
    text = (text.splitlines() or [""])[0][:_LONGEST].rstrip(".")
    numbers = [r"\d+" if found.isdigit() else r"[\d.e+-]+" for found in _NUMBER.findall(text)]
    between = [re.sub(r"\\([- ])", r"\1", re.escape(part)) for part in _NUMBER.split(text)]
    return "".join(chain.from_iterable(zip_longest(between, numbers, fillvalue="")))


def _quoted(value: Any) -> str:
    """Write a value as TOML; for strings, numbers and lists, JSON's form is the same.

    A regular expression becomes a literal string if possible, so that a backslash is not doubled.
    """
    if isinstance(value, str) and "\\" in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False)
