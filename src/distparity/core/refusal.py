"""Recognise a refusal by torch, a backend or a device: patterns for error texts, each with a fact.

The limits of a strategy or an operation, and a device's ``refuses``, are such patterns. They make a
case *not supported* only if the exception was raised inside torch or the backend, which the rank that
raised it determines (:mod:`distparity.torch_support.origin`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["TORCH", "fact_of", "pattern"]

#: The origin of an exception that was raised inside torch or the backend.
TORCH = "torch"
#: Unrelated texts: a pattern that matches one of them would match almost anything.
_UNRELATED = ("", "?", "0", "x", "Error", "RuntimeError: ", "ValueError: my own bug", "a\nb")


def pattern(text: str) -> re.Pattern[str]:
    """Compile the regular expression for a refusal.

    Raises ``ValueError`` if it is not one, or if it also matches unrelated texts.
    """
    try:
        found = re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    if any(found.search(other) for other in _UNRELATED):
        raise ValueError(f"{text!r} matches everything")
    return found


def fact_of(answers: Iterable[tuple[str, str]], said: str, origin: str) -> str | None:
    """The fact of the first ``(answer, fact)`` whose pattern is found in the text ``said``.

    None if there is none, or if the text did not come from torch or the backend.
    """
    if origin != TORCH:
        return None
    return next((fact for answer, fact in answers if pattern(answer).search(said)), None)
