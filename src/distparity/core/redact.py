"""Keep secrets out of what is written down.

The environment is never recorded. What a rank printed, an error's text or the command line may
still hold a secret of it, so all text of a report goes through :class:`Redactor` first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

__all__ = ["DOTS", "LEFT_OUT", "Redactor"]

#: Names of variables and options whose value is nobody's business. Words are cut at underscores and
#: hyphens, so that PWD and KEYBOARD are not among them.
_SECRET = re.compile(
    r"(^|[_-])(api[_-]?key|access[_-]?key|private[_-]?key|secret|token|pass(word|wd|phrase)?"
    r"|credentials?|auth(orization)?|key|pat|dsn|cookie)s?($|[_-])",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?P<name>--?[\w-]+)(?P<between>=|\s+)(?P<value>'[^']*'|\S+)")
_IN_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@", re.IGNORECASE)
#: A shorter value is found in too much that is no secret.
_SHORTEST = 6
#: A part of one that was cut is replaced from so many characters on.
_SHORTEST_PART = 4
#: What stands in place of what was cut off, behind a text and before one.
DOTS = "..."
LEFT_OUT = "[...]\n"
_CUT_BEFORE = re.compile(
    r"(?P<mark>\[(?:\.\.\.|\d+ bytes before this left out)\]\n\s*)(?P<rest>[^\n]*)"
)


class Redactor:
    """Replaces, in any text, the values of an environment's secret variables.

    Also what stands after an option with such a name, and the password in a URL.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        found = {
            spelling: name
            for name, value in environment.items()
            if _SECRET.search(name)
            for spelling in _spellings(value)
            if len(spelling) >= _SHORTEST
        }
        # The longest first: one secret may begin with another.
        self._names = {value: found[value] for value in sorted(found, key=len, reverse=True)}

    def spare(self, words: Iterable[str]) -> None:
        """Leave these words as they are, and every part of them: names that reports go by.

        A value that is one of them says nothing to whoever reads it, and where it were replaced, a
        case would have another name in one place than in another.
        """
        text = "\n".join(words)
        self._names = {value: name for value, name in self._names.items() if value not in text}

    def text(self, text: str) -> str:
        for value, name in self._names.items():
            text = text.replace(value, f"[${name}]")
        # Where a text was cut, a secret may have been.
        *cut, rest = text.split(DOTS)
        text = DOTS.join([*map(self._end, cut), rest])
        text = _CUT_BEFORE.sub(lambda found: found["mark"] + self._start(found["rest"]), text)
        return _IN_URL.sub(r"\g<before>***@", text)

    def _end(self, text: str) -> str:
        """Without what a secret begins with, at the end."""
        for value, name in self._names.items():
            for length in range(min(len(value), len(text)), _SHORTEST_PART - 1, -1):
                if text.endswith(value[:length]):
                    return f"{text[:-length]}[${name}]"
        return text

    def _start(self, text: str) -> str:
        """Without what a secret ends with, at the beginning."""
        for value, name in self._names.items():
            for length in range(min(len(value), len(text)), _SHORTEST_PART - 1, -1):
                if text.startswith(value[-length:]):
                    return f"[${name}]{text[length:]}"
        return text

    def command(self, line: str) -> str:
        """A command line: what stands after an option named like a secret goes as well."""
        return self.text(_OPTION.sub(_hide, line))

    def all(self, data: Any) -> Any:
        """JSON data with every string in it redacted."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, dict):
            return {key: self.all(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self.all(value) for value in data]
        return data


def _spellings(value: str) -> set[str]:
    """A value as it may stand in a text: as it is, as Python, JSON or a URL has it, by its lines."""
    shown = [repr(value), ascii(value), json.dumps(value), repr(os.fsencode(value))[1:]]
    lines = map(str.strip, value.splitlines())
    return {value, *(text[1:-1] for text in shown), *lines, quote(value, safe="")}


def _hide(found: re.Match[str]) -> str:
    if not _SECRET.search(found["name"].lstrip("-")):
        return found[0]
    return f"{found['name']}{found['between']}***"
