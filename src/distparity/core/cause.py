"""Why cases have their outcome, in words that cases of one cause share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["cause", "grouped"]

T = TypeVar("T")

_LONGEST = 160
#: Where torch's own answer begins behind the fact that it was asked about.
_ANSWER = re.compile(r": torch \S+ says .*", re.DOTALL)
#: The other ranks that did the same: how many there are depends on the world.
_ALIKE = re.compile(r"; the same on ranks? [\d, ]+")
#: How the message of wrong numbers begins.
_WRONG = re.compile(r"(?P<when>step \d+|before training|after training), (?P<kind>\w+) '")
_NUMBER = re.compile(r"(?<![A-Za-z_\d])\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def cause(status: str, message: str, facts: Mapping[str, Any]) -> str:
    """The cause of one outcome in one line.

    Of an expected failure it is the declared reason, of wrong numbers the diagnosis, or the kind of
    quantity that is wrong first and when.
    """
    if status == "expected failure" and facts.get("reason"):
        text = str(facts["reason"])
    elif facts.get("diagnosis"):
        text = str(facts["diagnosis"])
    elif found := _WRONG.match(message):
        text = f"wrong {found['kind']}, first {found['when'].replace('step', 'at step')}"
    else:
        text = _ALIKE.sub("", _ANSWER.sub("", message))
    line = (text.splitlines() or [""])[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def grouped(found: Iterable[tuple[str, str, T]]) -> list[tuple[str, str, Sequence[T]]]:
    """Put (status, cause, item) together by status and by cause up to its numbers, the most frequent
    first.

    A cause of which several numbers occur (the world size, a rank) is written with N in place of each.
    """
    groups: dict[tuple[str, str], tuple[dict[str, None], list[T]]] = {}
    for status, why, item in found:
        texts, items = groups.setdefault((status, _NUMBER.sub("N", why)), ({}, []))
        texts[why] = None
        items.append(item)
    named = [
        (status, why if len(texts) > 1 else next(iter(texts)), items)
        for (status, why), (texts, items) in groups.items()
    ]
    return sorted(named, key=lambda one: -len(one[2]))
