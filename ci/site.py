"""Build the documentation as a site in build/site: `nox -s docs`.

The pages are those of the repository. A link to a file that is no page (a source, a folder) becomes the
name of that file. Two pages are made here: the public classes and functions, from their docstrings, and a
report of real runs (docs/example; the deliberately wrong strategies of the tests are among its cases).
Warnings are errors: a page or an anchor that does not exist fails the build.
"""

from __future__ import annotations

import ast
import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import distparity
from distparity import report

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs", "examples")
CONFIGURATION = """\
site_name: distparity
site_description: Does distributed training compute the same thing as training in one process?
docs_dir: pages
site_dir: site
theme:
  name: material
  font: false
  features: [navigation.indexes, search.highlight, content.code.copy]
plugins:
  - search
  - mkdocstrings:
      handlers:
        python:
          paths: [src]
          options:
            docstring_style: null
            heading_level: 2
            members_order: source
            show_root_heading: true
            show_source: false
            filters: ["!^_"]
markdown_extensions:
  - toc: {permalink: true}
  - tables
  - pymdownx.superfences
  - pymdownx.arithmatex: {generic: true}
validation:
  nav: {omitted_files: ignore}
  links: {not_found: warn, anchors: warn, unrecognized_links: warn}
"""


#: Pages that only the site has, for its index.
MADE = """
## Only on this site

- [An example of a report](example/index.html): real runs of two releases, with deliberate faults among them
- [The public classes and functions](reference.md), from their docstrings
"""


def main() -> int:
    """Collect the pages and build the site; returns the exit code of mkdocs."""
    pages = BUILD / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    for name in PAGES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, pages / name, ignore=shutil.ignore_patterns("*.py", "*.toml"))
        elif source.exists():
            shutil.copy(source, pages / name)
    for page in pages.rglob("*.md"):
        page.write_text(linked(page.read_text("utf-8"), page.parent), encoding="utf-8")
    _reference(pages / "docs" / "reference.md")
    _example(pages / "docs" / "example")
    index = pages / "docs" / "README.md"
    index.write_text(index.read_text("utf-8") + MADE, encoding="utf-8")
    (BUILD / "mkdocs.yml").write_text(CONFIGURATION, encoding="utf-8")
    command = ["mkdocs", "build", "--strict", "--quiet", "--config-file", str(BUILD / "mkdocs.yml")]
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode


def _reference(page: Path) -> None:
    """Write the page of the public interface; its docstrings are read from a copy of the sources."""
    shutil.rmtree(BUILD / "src", ignore_errors=True)
    for source in (ROOT / "src").rglob("*.py"):
        copy = BUILD / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(documented(source.read_text("utf-8")), encoding="utf-8")
    named = {name: distparity._MODULES.get(name, "distparity") for name in distparity.__all__}  # noqa: SLF001
    places = [f"::: {module}.{name}" for name, module in named.items() if name != "__version__"]
    page.write_text("\n\n".join(["# The public classes and functions", *places]), "utf-8")


def documented(text: str) -> str:
    """Python's ``text`` with comments ``#:`` as docstrings, and references as plain names."""
    found: list[str] = []
    told: list[str] = []
    statement = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#:"):
            told.append(line.strip().removeprefix("#:").strip())
            continue
        found.append(line)
        if not told:
            continue
        statement += f"{line}\n"
        try:
            ast.parse(dedent(statement))
        except SyntaxError:
            continue
        margin = statement[: len(statement) - len(statement.lstrip())]
        words = "\n".join(told).replace("\\", "\\\\")
        found.append(indent(f'"""{words}\n"""', margin))
        told, statement = [], ""
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"``\1``", "\n".join(found))


def _example(folder: Path) -> None:
    """Make the report of the runs in docs/example."""
    runs = BUILD / "example"
    runs.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    for packed in (ROOT / "docs" / "example").glob("*.xml.gz"):
        (runs / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    report.write([runs], folder)
    (folder / "summary.md").unlink()


def linked(text: str, folder: Path) -> str:
    """``text`` without its links to what is no page: their targets are named instead."""

    def link(found: re.Match[str]) -> str:
        words, target = found[1], found[2]
        path = folder / target.partition("#")[0]
        if re.match(r"[a-z]+:|#", target) or path.is_file():
            return found[0]
        name = target.lstrip("./")
        return f"{words} (`{name}`)" if name not in words else words

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", link, text)


if __name__ == "__main__":
    sys.exit(main())
