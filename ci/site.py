"""Build the documentation as a site in build/site: `nox -s docs`.

The pages are those of the repository. A link to a file that is no page (a source, a folder) becomes the
name of that file. Warnings are errors: a page or an anchor that does not exist fails the build.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

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
plugins: [search]
markdown_extensions:
  - toc: {permalink: true}
  - tables
  - pymdownx.superfences
  - pymdownx.arithmatex: {generic: true}
validation:
  nav: {omitted_files: ignore}
  links: {not_found: warn, anchors: warn, unrecognized_links: warn}
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
    (BUILD / "mkdocs.yml").write_text(CONFIGURATION, encoding="utf-8")
    command = ["mkdocs", "build", "--strict", "--quiet", "--config-file", str(BUILD / "mkdocs.yml")]
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode


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
