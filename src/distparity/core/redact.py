"""Keep secrets out of everything that is written.

The environment is never recorded. But a rank's output, an error message or the command line may
contain a secret from it, so all text of a report goes through :class:`Redactor` first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

__all__ = ["DOTS", "LEFT_OUT", "Redactor", "omitted"]

#: Names of variables and options with secret values. Names are split at underscores and hyphens, so
#: that PWD and KEYBOARD do not match.
_SECRET = re.compile(
    r"(^|[_-])(api[_-]?key|access[_-]?key|private[_-]?key|secret|token|pass(word|wd|phrase)?"
    r"|credentials?|auth(orization)?|key|pat|dsn|cookie)s?($|[_-])",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?P<name>--?[\w-]+)(?P<between>=|\s+)(?P<value>'[^']*'|\S+)")
_IN_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@", re.IGNORECASE)
#: Shorter values are not replaced: they occur in too many other words.
_SHORTEST = 6
#: A part of a secret, where a text was cut, is replaced if it has at least so many characters.
_SHORTEST_PART = 4
#: The marks where a text was cut: at its end, and at its beginning.
DOTS = "..."
LEFT_OUT = "[...]\n"
_CUT_BEFORE = re.compile(r"(?P<mark>\[(?:\.\.\.|\d+ earlier bytes omitted)\]\n\s*)(?P<rest>[^\n]*)")


def omitted(count: int) -> str:
    """The mark at the beginning of a text that lacks its first ``count`` bytes.

    A secret may have been cut there; :class:`Redactor` recognises the mark.
    """
    return f"[{count} earlier bytes omitted]\n"


class Redactor:
    """Replaces the values of an environment's secret variables in any text.

    It also replaces the value after an option with a secret name, and the password in a URL.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        found = {
            spelling: name
            for name, value in environment.items()
            if _SECRET.search(name)
            for spelling in _spellings(value)
            if len(spelling) >= _SHORTEST
        }
        # The longest first, because one secret may contain another.
        self._names = {value: found[value] for value in sorted(found, key=len, reverse=True)}

    def spare(self, words: Iterable[str]) -> None:
        """Do not replace these words or parts of them: they are names that reports need.

        A secret that equals such a name is not revealed by it, and replacing it would give a case
        different names in different places.
        """
        text = "\n".join(words)
        self._names = {value: name for value, name in self._names.items() if value not in text}

    def text(self, text: str) -> str:
        """Redact a text, including parts of secrets where it was cut."""
        for value, name in self._names.items():
            text = text.replace(value, f"[${name}]")
        # A secret may have been cut where the text was.
        *cut, rest = text.split(DOTS)
        text = DOTS.join([*map(self._end, cut), rest])
        text = _CUT_BEFORE.sub(lambda found: found["mark"] + self._start(found["rest"]), text)
        return _IN_URL.sub(r"\g<before>***@", text)

    def _end(self, text: str) -> str:
        """Replace the beginning of a secret at the end of a text."""
        for value, name in self._names.items():
            for length in range(min(len(value), len(text)), _SHORTEST_PART - 1, -1):
                if text.endswith(value[:length]):
                    return f"{text[:-length]}[${name}]"
        return text

    def _start(self, text: str) -> str:
        """Replace the end of a secret at the beginning of a text."""
        for value, name in self._names.items():
            for length in range(min(len(value), len(text)), _SHORTEST_PART - 1, -1):
                if text.startswith(value[-length:]):
                    return f"[${name}]{text[length:]}"
        return text

    def command(self, line: str) -> str:
        """Redact a command line, including the values of options with secret names."""
        return self.text(_OPTION.sub(_hide, line))

    def all(self, data: Any) -> Any:
        """Redact every string in JSON data."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, dict):
            return {key: self.all(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self.all(value) for value in data]
        return data


def _spellings(value: str) -> set[str]:
    """The spellings of a value in a text: plain, as Python, JSON or a URL has it, and line by line."""
    shown = [repr(value), ascii(value), json.dumps(value), repr(os.fsencode(value))[1:]]
    lines = map(str.strip, value.splitlines())
    return {value, *(text[1:-1] for text in shown), *lines, quote(value, safe="")}


def _hide(found: re.Match[str]) -> str:
    if not _SECRET.search(found["name"].lstrip("-")):
        return found[0]
    return f"{found['name']}{found['between']}***"
