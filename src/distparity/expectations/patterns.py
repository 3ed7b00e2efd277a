"""Patterns for names: whether a name matches, and whether two patterns have a name in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase, translate
from functools import cache

__all__ = ["among", "any_of", "meet"]

_SPECIAL = re.compile(r"[*?[]")
#: The pieces of a pattern: any text, any character, a set of characters, or a literal character.
_PIECE = re.compile(r"\*|\?|\[!?]?[^]]*\]|.", re.DOTALL)


def among(value: str, patterns: tuple[str, ...]) -> bool:
    """Whether a value matches one of the patterns, and none of those after ``!``.

    If all patterns begin with ``!``, everything else matches.
    """
    into, out = _tests(patterns)
    return any(test(value) for test in into) and not any(test(value) for test in out)


def any_of(values: Collection[str], pattern: str) -> bool:
    """Whether one of the values matches the pattern."""
    return pattern in values or any(map(_test(pattern), values))


Test = Callable[[str], object]


@cache
def _tests(patterns: tuple[str, ...]) -> tuple[list[Test], list[Test]]:
    """What a value must pass one of, and what it must pass none of."""
    out = [_test(pattern[1:]) for pattern in patterns if pattern.startswith("!")]
    into = [_test(pattern) for pattern in patterns if not pattern.startswith("!")]
    return into or [_test("*")], out


@cache
def _test(pattern: str) -> Test:
    if _SPECIAL.search(pattern):
        return re.compile(translate(pattern)).match
    return pattern.__eq__


def meet(one: str, other: str) -> bool:
    """Whether there is a name that matches both patterns."""
    for name, pattern in ((one, other), (other, one)):
        if not _SPECIAL.search(name):
            return fnmatchcase(name, pattern)
    signs = _signs(one + other)
    mine, theirs = _PIECE.findall(one), _PIECE.findall(other)

    @cache
    def rest(i: int, j: int) -> bool:
        left, right = mine[i : i + 1], theirs[j : j + 1]
        if left == ["*"]:
            return rest(i + 1, j) or (bool(right) and rest(i, j + 1))
        if right == ["*"]:
            return rest(i, j + 1) or (bool(left) and rest(i + 1, j))
        if not (left and right):
            return not (left or right)
        alike = any(fnmatchcase(c, left[0]) and fnmatchcase(c, right[0]) for c in signs)
        return alike and rest(i + 1, j + 1)

    return rest(0, 0)


def _signs(text: str) -> list[str]:
    """Characters that suffice to tell whether two sets intersect: the ends of ranges, and their
    neighbours.
    """

    def around() -> Iterator[int]:
        for c in text:
            yield from (ord(c) - 1, ord(c), ord(c) + 1)

    return [chr(code) for code in sorted({*around(), 0}) if 0 <= code <= 0x10FFFF]
