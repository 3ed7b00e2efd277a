"""The skip lists of others: read them as names with reasons, and write our expected failures in their forms.

A skip list names what does not run. An expectation also says how a case fails, which only results can
tell. So a list gives the reason and the link, and the results give the rest.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from distparity.core.case import Case
from distparity.core.naming import UPSTREAM

__all__ = ["FORMS", "Skipped", "read", "write"]

_URL = re.compile(r"https?://[^\s'\"<>)\]]+")


@dataclass(frozen=True)
class Skipped:
    """One name of a list, with what the list says about it; both texts may be empty."""

    test: str
    reason: str = ""
    link: str = ""

    def names(self, case: Case) -> bool:
        """Whether the name is that of a case: its id, its beginning, or as in ``pytest -k`` a part of it.

        A path is the case's file: ``.../resume.py::ddp-ws2`` names the cases that begin with
        ``resume/ddp-ws2``.
        """
        path, separator, name = self.test.rpartition("::")
        if not separator:
            return self.test.strip("'\"") in case.id
        if case.scenario.startswith(UPSTREAM):
            return self._names_upstream(case, path, name)
        # Classes and folders before the scenario say nothing more.
        scenario = path.partition("::")[0].rpartition("/")[2].removesuffix(".py")
        return f"{case.id}-{case.device}".startswith(f"{scenario.rpartition('.')[2]}/{name}")

    @staticmethod
    def _names_upstream(case: Case, path: str, name: str) -> bool:
        """Of torch's own tests, a list names one by its file and class, or by ``__main__.Class``."""
        file, _, group = path.partition("::")
        if not file.endswith(".py"):
            file, group = "", file.rpartition(".")[2]
        file = file.rpartition("test/distributed/")[2].removesuffix(".py").replace("/", ".")
        return case.strategy == ".".join(filter(None, [group, name])) and (
            not file or f"/{case.scenario}".endswith(f"/{UPSTREAM}{file}")
        )


def read(form: str, text: str) -> list[Skipped]:
    """The names in a list of the given form; raises ``ValueError`` if it has another form."""
    return list(_READERS[form](text))


def _commented(lines: Iterable[str], names: Callable[[str], list[str]]) -> Iterator[Skipped]:
    """The names of lines. A comment is about the rest of its line, or about the names right below it."""
    block: list[str] = []
    after_name = False
    for line in map(str.strip, lines):
        code, _, comment = line.partition("#") if line.startswith("#") else _cut(line)
        found = names(code.strip())
        if found:
            for name in found:
                yield _skipped(name, comment.strip() or " ".join(block))
            after_name = True
        elif comment:
            block = [*([] if after_name else block), comment.strip()]
            after_name = False
        else:
            block = []


def _cut(line: str) -> tuple[str, str, str]:
    """A line's code and its comment: a ``#`` inside a name begins none."""
    return line.partition(" #")


def _skipped(test: str, said: str) -> Skipped:
    link = _URL.search(said)
    reason = " ".join(_URL.sub("", said).split()).strip(" :;,-")
    return Skipped(test, reason, link[0] if link else "")


def _torch_xpu_ops(text: str) -> Iterator[Skipped]:
    """``skip_dict = {"file.py": ("name", ...), "other.py": None}``; None skips nothing."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from None
    tables = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    if not tables:
        raise ValueError("it assigns no dictionary")
    # Line by line, because the syntax tree has no comments.
    of_line: dict[int, list[str]] = {}
    for table in tables:
        for node in (node for value in table.values for node in ast.walk(value)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                of_line.setdefault(node.lineno, []).append(node.value)
    lines = text.splitlines()
    numbers = iter(range(1, len(lines) + 1))
    yield from _commented(lines, lambda _: of_line.get(next(numbers), []))


def _ascend_json(text: str) -> Iterator[Skipped]:
    """``{"name (module.Class)": ["why, or a link", ["platform"]]}``."""
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("it is not an object")  # noqa: TRY004  the file is wrong, not the call
    for key, value in data.items():
        name, _, where = key.partition(" (")
        scenario = where.rstrip(")")
        said = value[0] if isinstance(value, list) and value else ""
        yield _skipped(f"{scenario}::{name}" if scenario else name, str(said))


def _lines(text: str) -> Iterator[Skipped]:
    """One name per line, alone or as ``--deselect NAME``."""

    def names(code: str) -> list[str]:
        return list(filter(None, [re.sub(r"^--deselect[ =]\s*", "", code).strip("'\"")]))

    yield from _commented(text.splitlines(), names)


_READERS: dict[str, Callable[[str], Iterator[Skipped]]] = {
    "torch-xpu-ops": _torch_xpu_ops,
    "ascend-json": _ascend_json,
    "pytest-deselect": _lines,
    "array-api": _lines,
}
FORMS = tuple(_READERS)


def write(form: str, skipped: dict[Case, str]) -> str:
    """A list of the given form of these cases, each with what is said about it in one line."""
    return _WRITERS[form](skipped)


def _node(case: Case) -> tuple[str, str, str]:
    """The file of a case, the group in it, and its name there."""
    if not case.scenario.startswith(UPSTREAM):
        return f"{case.scenario}.py", "", case.name
    file = case.scenario.removeprefix(UPSTREAM).replace(".", "/")
    group, _, name = case.strategy.rpartition(".")
    return f"test/distributed/{file}.py", group, name


def _as_lines(prefix: str) -> Callable[[dict[Case, str]], str]:
    def lines(skipped: dict[Case, str]) -> str:
        return "".join(
            f"# {said}\n{prefix}{'::'.join(filter(None, _node(case)))}\n\n"
            for case, said in skipped.items()
        )

    return lines


def _as_dictionary(skipped: dict[Case, str]) -> str:
    found = "skip_dict = {\n"
    for own in dict.fromkeys(_node(case)[0] for case in skipped):
        found += f"    {json.dumps(own)}: (\n"
        for case, said in skipped.items():
            file, _, name = _node(case)
            if file == own:
                found += f"        # {said}\n        {json.dumps(name)},\n"
        found += "    ),\n"
    return f"{found}}}\n"


def _as_json(skipped: dict[Case, str]) -> str:
    found = {}
    for case, said in skipped.items():
        _, group, name = _node(case)
        found[f"{name} ({f'__main__.{group}' if group else case.scenario})"] = [said, []]
    return json.dumps(found, indent=2) + "\n"


_WRITERS: dict[str, Callable[[dict[Case, str]], str]] = {
    "torch-xpu-ops": _as_dictionary,
    "ascend-json": _as_json,
    "pytest-deselect": _as_lines("--deselect="),
    "array-api": _as_lines(""),
}
