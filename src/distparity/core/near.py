"""What was probably meant by a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from distparity.core.bad_request import BadRequest

__all__ = ["near", "unknown"]

#: The most names that a message lists.
_MOST = 20


def near(name: str, known: Iterable[str]) -> list[str]:
    """The known names that ``name`` begins, or else those that are most like it."""
    every = list(dict.fromkeys(known))
    begun = [one for one in every if len(name) > 2 and one.startswith(name)]
    return begun[:3] or difflib.get_close_matches(name, every, 3, 0.6)


def unknown(
    what: str, name: str, known: Iterable[str], hint: str = "", *, listed: bool = True
) -> BadRequest:
    """The error for a name that does not exist: with what was meant, or with the names there are.

    ``hint`` says where a longer list of names is; ``listed`` whether a short one is given.
    """
    every = list(known)
    found = near(name, every)
    message = f"unknown {what} {name!r}"
    if found:
        message += f"; did you mean {' or '.join(map(repr, found))}?"
    if listed and 0 < len(every) <= _MOST:
        message += f"{'' if found else ';'} known: {', '.join(every)}"
    elif hint:
        message += f"{'' if found else ';'} {hint}"
    return BadRequest(message)
