"""Entries for what failed in a result file, for a person to read, to narrow and to give a reason.

Cases that failed in the same way are one entry. It names them by patterns only where those mean
these cases and no others of the file; else by their ids.
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
from distparity.expectations import pins

__all__ = ["Failed", "as_proposals", "propose"]

_PARTS: tuple[tuple[str, Callable[[Case], Any]], ...] = (
    ("scenario", lambda case: case.scenario),
    ("strategy", lambda case: case.strategy),
    ("world_size", lambda case: case.world_size),
    ("dtype", lambda case: case.dtype),
)
_NUMBER = re.compile(r"\d[\d.]*(?:e[-+]?\d+)?")
#: Stands above what has no reason yet.
_UNREAD = (
    "Proposals, and not yet expectations: none holds before a person has read it, given it a reason",
    "and a link, and taken the # from the beginning of its lines.",
)
#: What is taken over from an error: enough to tell it from others.
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
        """The key of an entry that it is known by, and the value: a regular expression, or checks."""
        if self.failure == "findings":
            return "diagnosis", f"^{_pattern(self.diagnosis)}"
        if self.failure != "wrong numbers":
            return "error", _pattern(self.message)
        if self.checks:
            return "checks", tuple(glob.escape(check) for check in self.checks)
        if self.diagnosis:
            return "diagnosis", f"^{_pattern(self.diagnosis)}"
        # "step 0, gradient 'weight', rank 0: ..." is known by the kind of quantity.
        found = re.match(r"(?:[^,]*, )?(\w+)", self.message)
        return "quantity", rf"\b{found[1]}\b" if found else "."

    @property
    def kind(self) -> str:
        """What is alike in all that one reason can be given for, in one line."""
        looks, value = self.looks
        said = value if isinstance(value, str) else ", ".join(value)
        return f"{self.failure}, {looks} {said}"


def propose(
    failed: Mapping[Case, Failed], cases: Iterable[Case], torch: str, reason: str, link: str
) -> list[str]:
    """The text of each entry. ``cases`` are all of the file, ``torch`` the release it is about."""
    groups: dict[tuple[Any, ...], list[Case]] = {}
    for case, one in failed.items():
        groups.setdefault((case.device, one.failure, *one.looks), []).append(case)
    everything = set(cases)
    return [
        "\n".join(_entry(group, key, everything, torch, reason, link, _pins(group, failed, torch)))
        + "\n"
        for key, group in groups.items()
    ]


def _pins(group: list[Case], failed: Mapping[Case, Failed], torch: str) -> list[dict[str, Any]]:
    """How wrong each case of training is, where its numbers are."""
    every = [
        pins.line(case.id, torch, failed[case].message, failed[case].diagnosis)
        for case in group
        if failed[case].failure == "wrong numbers" and not failed[case].checks
    ]
    return [pin for pin in every if pin is not None]


def as_proposals(entries: Iterable[str]) -> str:
    """The text of entries that nobody has given a reason: comments, so that none is loaded."""
    lines = "\n".join(["\n".join(_UNREAD) + "\n", *entries]).splitlines()
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _entry(
    group: list[Case],
    key: tuple[Any, ...],
    everything: set[Case],
    torch: str,
    reason: str,
    link: str,
    pinned: list[dict[str, Any]],
) -> Iterator[str]:
    device, failure, looks, value = key
    yield "[[expect]]"
    yield from _cases(group, everything)
    yield f"device = {_quoted(device)}"
    yield f"torch = {_quoted(f'=={torch}')}"
    yield f"failure = {_quoted(failure)}"
    yield f"{looks} = {_quoted(value)}"
    if pinned:
        yield "pins = ["
        yield from (
            f"  {{ {', '.join(f'{k} = {_quoted(v)}' for k, v in pin.items())} }}," for pin in pinned
        )
        yield "]"
    yield f"reason = {_quoted(reason)}"
    yield f"link = {_quoted(link)}"


def _cases(group: list[Case], everything: set[Case]) -> Iterator[str]:
    """The group by its parts where those mean just the group, else by ids."""
    values = [list(dict.fromkeys(part(case) for case in group)) for _, part in _PARTS]
    device = group[0].device
    meant = {Case(s, t, w, d, device) for s, t, w, d in product(*values)}
    if len(group) > 1 and meant & everything == set(group):
        for (name, _), found in zip(_PARTS, values, strict=True):
            yield f"{name} = {_quoted(found[0] if len(found) == 1 else found)}"
    else:
        yield "cases = ["
        yield from (f"  {_quoted(case.id)}," for case in group)
        yield "]"


def _pattern(text: str) -> str:
    """A regular expression for the beginning of a text, whatever numbers are in it."""
    text = (text.splitlines() or [""])[0][:_LONGEST].rstrip(".")
    numbers = [r"\d+" if found.isdigit() else r"[\d.e+-]+" for found in _NUMBER.findall(text)]
    between = [re.sub(r"\\([- ])", r"\1", re.escape(part)) for part in _NUMBER.split(text)]
    return "".join(chain.from_iterable(zip_longest(between, numbers, fillvalue="")))


def _quoted(value: Any) -> str:
    """As TOML has it: what JSON makes of texts, numbers and lists of them is the same.

    A regular expression is literal where it can be, so that a person reads one backslash as one.
    """
    if isinstance(value, str) and "\\" in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False)
