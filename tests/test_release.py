"""What is shipped: the contents of the distributions, the version, and the pages of the site."""

from __future__ import annotations

import gzip
import runpy
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from distparity import __version__, report
from distparity.core.version import version

ROOT = Path(__file__).parents[1]
CI = ROOT / "ci"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
TRACKED = {"README.md", "src/distparity/a.py", "defects/one.py", "tests/test_a.py"}
WHEEL = ["distparity/a.py", "distparity/defects/one.py", "distparity-1.dist-info/METADATA"]


def _complaints(folder: Path, wheel: list[str], sdist: set[str]) -> list[str]:
    packed, archive = folder / "a.whl", folder / "a.tar.gz"
    with zipfile.ZipFile(packed, "w") as file:
        for name in wheel:
            file.writestr(name, "")
    (folder / "empty").write_text("")
    with tarfile.open(archive, "w:gz") as tar:
        for name in sdist:
            tar.add(folder / "empty", f"distparity-1/{name}")
    contents = runpy.run_path(str(CI / "release.py"))["contents"]
    return list(contents(packed, archive, TRACKED))


CONTENTS = {
    "all of it": (WHEEL, {*TRACKED, "PKG-INFO"}, []),
    "a cache": ([*WHEEL, "distparity/a.pyc"], TRACKED, ["a.whl has distparity/a.pyc (1 in all)"]),
    "no program": (WHEEL[:1], TRACKED, ["a.whl lacks distparity/defects/one.py (1 in all)"]),
    "no tests": (
        WHEEL,
        TRACKED - {"tests/test_a.py"},
        ["a.tar.gz lacks tests/test_a.py (1 in all)"],
    ),
}


@pytest.mark.parametrize(("wheel", "sdist", "says"), CONTENTS.values(), ids=CONTENTS)
def test_distributions_have_what_git_has(
    tmp_path: Path, wheel: list[str], sdist: set[str], says: list[str]
) -> None:
    assert _complaints(tmp_path, wheel, sdist) == says


def test_version_is_that_of_the_installed_package() -> None:
    assert __version__ == version("distparity")


class Hook:
    """In place of hatchling's, which only builds need."""


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    fake = ModuleType("hatchling.metadata.plugin.interface")
    fake.MetadataHookInterface = Hook  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return runpy.run_path(str(CI / "metadata.py"))["linked"]  # type: ignore[no-any-return]


SOURCE = "https://example.org/x/tree/v1"
ON_AN_INDEX = {
    "[a page](docs/a.md#b)": (f"[a page]({SOURCE}/docs/a.md#b)", "a page"),
    "![p](docs/p.png)": ("![p](https://example.org/x/raw/v1/docs/p.png)", ""),
    "[out](https://example.org)": ("[out](https://example.org)",) * 2,
    "[here](#more)": ("[here](#more)",) * 2,
}


@pytest.mark.parametrize(("text", "becomes"), ON_AN_INDEX.items(), ids=ON_AN_INDEX)
def test_readme_of_an_index_has_no_link_to_nothing(
    linked: Callable[[str, str], str], text: str, becomes: tuple[str, str]
) -> None:
    assert (linked(text, SOURCE), linked(text, "")) == becomes


def test_changes_are_lists_of_a_known_type() -> None:
    kinds = {one["directory"] for one in PYPROJECT["tool"]["towncrier"]["type"]}
    fragments = list((ROOT / "changelog").glob("*.md"))

    assert {path.suffixes[-2].lstrip(".") for path in fragments} <= kinds
    assert all(path.read_text("utf-8").startswith("- ") for path in fragments)


LINKS = {
    "[a page](verdict.md#x)": "[a page](verdict.md#x)",
    "[elsewhere](https://example.org)": "[elsewhere](https://example.org)",
    "[the base](../src/distparity/base.py)": "the base (`src/distparity/base.py`)",
    "[ci/gitlab.yml](../ci/gitlab.yml)": "ci/gitlab.yml",
    "![a picture](report-matrix.png)": "![a picture](report-matrix.png)",
}


@pytest.mark.parametrize(("text", "becomes"), LINKS.items(), ids=LINKS)
def test_links_of_the_site_lead_to_pages(tmp_path: Path, text: str, becomes: str) -> None:
    (tmp_path / "verdict.md").write_text("")

    assert runpy.run_path(str(CI / "site.py"))["linked"](text, tmp_path) == becomes


DOCUMENTED = {
    "#: Where.\nx: int = 1": 'x: int = 1\n"""Where.\n"""',
    "  #: One.\n  #: Two.\n  x = (\n    1,\n  )": '  x = (\n    1,\n  )\n  """One.\n  Two.\n  """',
    '"""See :meth:`a.b.C.d`."""': '"""See ``d``."""',
    "x = 1  # no comment of documentation": "x = 1  # no comment of documentation",
}


@pytest.mark.parametrize(("text", "becomes"), DOCUMENTED.items())
def test_comments_of_attributes_are_docstrings_on_the_site(text: str, becomes: str) -> None:
    assert runpy.run_path(str(CI / "site.py"))["documented"](text) == becomes


def test_example_of_a_report_is_of_real_runs(tmp_path: Path) -> None:
    for packed in (ROOT / "docs" / "example").iterdir():
        (tmp_path / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    found, _ = report.write([tmp_path], tmp_path / "out")

    assert [column.name for column in found.columns] == ["2.4-cpu", "2.13-cpu"]
    assert all(column.facts["ended"] == "finished" for column in found.columns)
    assert {"passed", "failed", "expected failure", "not supported"} <= found.counts.keys()
