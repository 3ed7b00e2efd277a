"""Keep secrets out of what is written down.

The environment is never recorded. What a rank printed, an error's text or the command line may
still hold a secret of it, so all text of a report goes through :class:`Censor` first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["Censor"]

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


class Censor:
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

    def text(self, text: str) -> str:
        for value, name in self._names.items():
            text = text.replace(value, f"[${name}]")
        return _IN_URL.sub(r"\g<before>***@", text)

    def command(self, line: str) -> str:
        """A command line: what stands after an option named like a secret goes as well."""
        return self.text(_OPTION.sub(_hide, line))

    def all(self, data: Any) -> Any:
        """JSON data with every string in it censored."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, dict):
            return {key: self.all(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self.all(value) for value in data]
        return data


def _spellings(value: str) -> set[str]:
    """A value as it may stand in a text: as it is, as Python or JSON show it, each of its lines."""
    return {value, repr(value)[1:-1], json.dumps(value)[1:-1], *map(str.strip, value.splitlines())}


def _hide(found: re.Match[str]) -> str:
    if not _SECRET.search(found["name"].lstrip("-")):
        return found[0]
    return f"{found['name']}{found['between']}***"
