"""What torch, a backend or a device refuses by its own word: patterns of its words, each with a fact.

A limit of a strategy or an operation and what a device ``refuses`` are both that, and both make a case
*not supported* only where the words came out of torch or of the backend, which the rank that raised
says (:mod:`distparity.torch_support.origin`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["TORCH", "fact_of", "pattern"]

#: What a rank calls the origin of an exception that came out of torch or of the backend.
TORCH = "torch"
#: Texts that have nothing in common: what is found in one of them is found in everything.
_UNRELATED = ("", "?", "0", "x", "Error", "RuntimeError: ", "ValueError: my own bug", "a\nb")


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression for the words of a refusal.

    Raises ``ValueError`` where it is none, and where it would be found in other words as well.
    """
    try:
        found = re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    if any(found.search(other) for other in _UNRELATED):
        raise ValueError(f"{text!r} matches everything")
    return found


def fact_of(answers: Iterable[tuple[str, str]], said: str, origin: str) -> str | None:
    """The fact of the first answer, of ``(answer, fact)``, that is found in what was said.

    None where none is, and where it was not torch or the backend that said it.
    """
    if origin != TORCH:
        return None
    return next((fact for answer, fact in answers if pattern(answer).search(said)), None)
