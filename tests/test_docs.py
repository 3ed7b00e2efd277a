"""The documentation is true: the paths, links, names and commands in it exist."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nox.registry
import pytest

import distparity
from distparity import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
CHANGES = sorted((ROOT / "changelog").glob("*.md"))
PAGES += [*CHANGES, *sorted((ROOT / "docs").glob("*.md"))]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
#: Where a path in a page begins: at the root, beside the page, or (CONTRIBUTING says so) in the package.
BASES = (ROOT, ROOT / "docs", ROOT / "src" / "distparity")
#: Folders of the repository and of the package; other words with a slash are cases or outputs.
FOLDERS = {
    *("src", "tests", "ci", "docs", "defects", "benchmarks", ".ci"),
    *(path.name for path in (ROOT / "src" / "distparity").iterdir() if path.is_dir()),
} - {"expectations"}


def spans(text: str) -> list[str]:
    """What stands between single backquotes, outside blocks."""
    return re.findall(
        r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )


def exists(name: str) -> bool:
    """Whether there is such a path; ``<name>`` in it stands for anything."""
    pattern = re.sub(r"<[^>]*>", "*", name).rstrip("/")
    return any(next(iter(base.glob(pattern)), None) is not None for base in BASES)


@EVERY_PAGE
def test_paths_exist(page: Path) -> None:
    named = [span for span in spans(page.read_text(encoding="utf-8")) if "/" in span]
    paths = [s for s in named if s.split("/")[0] in FOLDERS and re.fullmatch(r"[\w./<>*-]+", s)]

    assert [path for path in paths if not exists(path)] == []


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@EVERY_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    broken = []
    for link in (link for link in links if "://" not in link):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        there = target.exists()
        if there and anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            there = anchor in map(slug, headings)
        broken += [] if there else [link]

    assert broken == []


@EVERY_PAGE
def test_python_names_exist(page: Path) -> None:
    modules = {path.stem for path in (ROOT / "src" / "distparity").iterdir()}
    names = [
        span
        for span in spans(page.read_text(encoding="utf-8"))
        if re.fullmatch(r"distparity(\.\w+)+", span)
        if span.split(".")[1] in {*modules, *distparity.__all__}
    ]

    assert [name for name in names if not resolves(name)] == []


def resolves(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if importlib.util.find_spec(module) is not None if end == 1 else _has(module):
            found: object = importlib.import_module(module)
            for part in parts[end:]:
                if not hasattr(found, part):
                    return False
                found = getattr(found, part)
            return True
    return False


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")

    assert [page.name for page in PAGES[3 + len(CHANGES) :] if f"]({page.name})" not in index] == [
        "README.md"
    ]


# -- commands --------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command in a page: in spans, and after a prompt in blocks."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [" ".join(span.split()) for span in spans(text)]
    lines += re.findall(r"^(?:\$ | {4})(.*)$", text, re.MULTILINE)
    for line in lines:
        for part in re.split(r"  +#| && ", line)[0:2]:
            words = part.split()
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if len(words) > 1 and words[0] in WRONG:
                yield words


@cache
def sessions() -> frozenset[str]:
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return frozenset(nox.registry.get())


def wrong_nox(words: list[str]) -> list[str]:
    """The sessions and tags of a nox command that there are not."""
    known = sessions()
    ours = words[: words.index("--")] if "--" in words else words
    if "-s" in ours:
        return [w for w in ours[ours.index("-s") + 1 :] if w not in known]
    if "-t" in ours:
        tags = {tag for func in nox.registry.get().values() for tag in func.tags}
        return [w for w in ours[ours.index("-t") + 1 :] if w not in tags]
    return [w for w in ours[1:] if w != "--list"]


@cache
def run_options() -> frozenset[str]:
    """What ``distparity run`` takes: pytest's options and the plug-in's."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "distparity.pytest_plugin.plugin", "--help"],
        cwd=ROOT / "docs",
        capture_output=True,
        text=True,
        check=True,
    )
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", done.stdout))


@cache
def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in cli.parser()._actions if isinstance(a.choices, dict))
    assert isinstance(action.choices, dict)
    return action.choices


def wrong_distparity(words: list[str]) -> list[str]:
    """The subcommand, or the options, of a distparity command that there are not."""
    name, *rest = words[1:]
    if name not in subcommands():
        return [name] if re.fullmatch(r"[a-z]+", name) else []
    parser = subcommands()[name]
    while (more := [a for a in parser._actions if isinstance(a.choices, dict)]) and rest:
        choices = more[0].choices
        assert isinstance(choices, dict)
        if rest[0] not in choices:
            return rest[:1]
        parser, rest = choices[rest[0]], rest[1:]
    # pytest has options of a run, too.
    known = {*parser._option_string_actions, *(run_options() if name == "run" else ())}
    # What follows such an option is another program's.
    ends = {
        one for a in parser._actions if a.nargs == argparse.REMAINDER for one in a.option_strings
    }
    rest = list(itertools.takewhile(lambda word: word not in ends, rest))
    options = [word.partition("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)]
    return [option for option in options if option not in known]


def wrong_python(words: list[str]) -> list[str]:
    """The script of a python command that there is not."""
    return [word for word in words[1:2] if word.endswith(".py") and not (ROOT / word).is_file()]


WRONG = {
    "nox": wrong_nox,
    "distparity": wrong_distparity,
    "python": wrong_python,
    "python3": wrong_python,
}


@EVERY_PAGE
def test_commands_exist(page: Path) -> None:
    assert [(words, lost) for words in commands(page) if (lost := WRONG[words[0]](words))] == []


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("nox -s tests-2.13 -- --select quick", []),
        ("nox -s tests-1.0", ["tests-1.0"]),
        ("nox -t stables", ["stables"]),
        ("distparity run --device cpu -k 'a and b'", []),
        ("distparity run --devices cpu", ["--devices"]),
        ("distparity expectations update x.xml --case a", []),
        ("distparity expectations improve x.xml", ["improve"]),
        ("distparity bisekt", ["bisekt"]),
        ("python ci/matricks.py", ["ci/matricks.py"]),
    ],
)
def test_command_that_there_is_not_is_found(line: str, lost: list[str]) -> None:
    words = shlex.split(line)

    assert WRONG[words[0]](words) == lost
