"""Jenkins' declarative syntax, as far as this project's pipelines use it.

Jenkins itself is the only program that checks a pipeline whole. This knows the sections of its reference
page: which there are in a pipeline, a stage and a ``post``, and which must be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["complaints"]

SECTIONS = {
    "pipeline": {
        *("agent", "environment", "libraries", "options", "parameters", "post", "stages", "tools"),
        "triggers",
    },
    "stage": {
        *("agent", "environment", "failFast", "input", "matrix", "options", "parallel", "post"),
        *("stages", "steps", "tools", "when"),
    },
    "stages": {"stage"},
    "parallel": {"stage"},
    "post": {
        *("aborted", "always", "changed", "cleanup", "failure", "fixed", "regression", "success"),
        *("unstable", "unsuccessful"),
    },
    "options": {
        *("buildDiscarder", "catchError", "disableConcurrentBuilds", "parallelsAlwaysFailFast"),
        *("quietPeriod", "retry", "skipDefaultCheckout", "skipStagesAfterUnstable", "timeout"),
        "timestamps",
    },
    "triggers": {"cron", "pollSCM", "upstream"},
}
AGENTS = {"any", "none"}
KINDS_OF_AGENT = {"docker", "dockerfile", "kubernetes", "label", "node"}
#: What a stage does: exactly one of them.
WORK = {"matrix", "parallel", "stages", "steps"}
#: Groovy that a declarative pipeline has in ``script`` alone.
LOOSE = re.compile(r"(def|for|if|while|try|return)\b|\w+\s*(=|<<)")
_OPEN, _SHUT = "([{", ")]}"


def complaints(text: str) -> list[str]:
    """What Jenkins would refuse, one line each."""
    # The words of a string do not matter here, nor do comments.
    plain = re.sub(r"//[^\n]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", _blank, text)
    depth: list[str] = []
    for sign in re.findall(r"[][(){}]", plain):
        if sign in _OPEN:
            depth.append(sign)
        elif not depth or _OPEN.index(depth.pop()) != _SHUT.index(sign):
            return [f"{sign} closes nothing"]
    if depth:
        return [f"{depth[-1]} is not closed"]
    found = [(name, inside) for name, inside in _statements(plain) if name == "pipeline"]
    if len(found) != 1 or found[0][1] is None:
        return [f"{len(found)} blocks pipeline, where there is one"]
    return list(_block("pipeline", found[0][1]))


def _blank(found: re.Match[str]) -> str:
    return "" if found[0].startswith("//") else "''"


def _statements(text: str) -> Iterator[tuple[str, str | None]]:
    """Each statement's first word, and what is in its braces; None if it has none."""
    place = 0
    while (word := re.compile(r"\S+?(?=[\s({]|$)").search(text, place)) is not None:
        place, inside = word.end(), None
        while place < len(text) and text[place] != "\n":
            if text[place] not in _OPEN:
                place += 1
                continue
            end = _end(text, place)
            inside = text[place + 1 : end] if text[place] == "{" else inside
            place = end + 1
        yield word[0], inside


def _end(text: str, begin: int) -> int:
    depth = 0
    for place in range(begin, len(text)):
        depth += (text[place] in _OPEN) - (text[place] in _SHUT)
        if depth == 0:
            return place
    raise AssertionError("the signs are balanced")


def _block(kind: str, text: str) -> Iterator[str]:
    inside = list(_statements(text))
    names = [name for name, _ in inside]
    if kind in SECTIONS:
        yield from (f"{kind} has no {name}" for name in names if name not in SECTIONS[kind])
    if kind == "pipeline":
        yield from (f"{kind} needs {name}" for name in ("agent", "stages") if name not in names)
    if kind in ("pipeline", "stage"):
        yield from (f"{kind} has two {name}" for name in set(names) if names.count(name) > 1)
    if kind == "stage" and len(WORK.intersection(names)) != 1:
        yield f"a stage needs one of {', '.join(sorted(WORK))}"
    if kind in ("steps", *SECTIONS["post"]):
        loose = [line.strip() for line in _outside_script(text) if LOOSE.match(line.strip())]
        yield from (f"{kind} has Groovy outside of script: {line}" for line in loose)
    for name, block in inside:
        if name == "agent":
            yield from _agent(block, text)
        elif name in (*SECTIONS, *SECTIONS["post"], "steps"):
            if not block or not block.strip():
                yield f"{name} is empty"
            else:
                yield from _block(name, block)


def _agent(block: str | None, text: str) -> Iterator[str]:
    if block is None:
        words = re.findall(r"\bagent\s+(\S+)", text)
        yield from (f"there is no agent {word}" for word in words if word not in (*AGENTS, "{"))
        return
    names = [name for name, _ in _statements(block)]
    if not KINDS_OF_AGENT.intersection(names):
        yield f"an agent needs one of {', '.join(sorted(KINDS_OF_AGENT))}"


def _outside_script(text: str) -> list[str]:
    while (found := re.search(r"\bscript\s*\{", text)) is not None:
        begin = found.end() - 1
        text = text[: found.start()] + text[_end(text, begin) + 1 :]
    return text.splitlines()
