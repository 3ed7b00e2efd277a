"""The public interface: what imports what, what is declared, and the number of the schema."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cells
import pytest

import distparity
from distparity import releases
from distparity.report import Refused
from distparity.report.read import read
from distparity.results import journal, junit_writer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Never declared: installing distparity must not replace a vendor's torch, or what comes with one.
BROUGHT = {
    *("torch", "numpy", "torch_npu", "habana_frameworks"),
    *("intel_extension_for_pytorch", "oneccl_bindings_for_pytorch"),
}


def imports(code: str, *names: str) -> list[str]:
    """Which of the named modules are loaded after ``code`` in a fresh interpreter."""
    code = f"import json, sys\n{code}\nprint(json.dumps([n for n in {names} if n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


def test_import_of_the_package_is_of_neither_torch_nor_pytest() -> None:
    code = "import distparity; distparity.__version__"

    assert imports(code, "torch", "pytest", "numpy", "packaging") == []


@pytest.mark.parametrize("name", distparity.__all__)
def test_public_name_is_there_and_on_the_page(name: str) -> None:
    assert getattr(distparity, name) is not None
    assert f"`distparity.{name}`" in PAGE


def test_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        distparity.Nothing  # noqa: B018


# -- what is declared ------------------------------------------------------------------------------


def third_party() -> dict[str, str]:
    """The modules of other packages that the package imports, each with a file that does."""
    found: dict[str, str] = {}
    for path in (ROOT / "src" / "distparity").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found |= {name.partition(".")[0]: path.name for name in names}
    ours = {*sys.stdlib_module_names, "tomllib", "distparity"}
    return {name: file for name, file in found.items() if name not in ours}


def test_what_is_imported_is_declared() -> None:
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["report"]]
    declared = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in wanted} | BROUGHT

    found = third_party()
    assert {name: file for name, file in found.items() if name not in declared} == {}


def test_classifiers_are_the_pythons_of_the_matrix() -> None:
    prefix = "Programming Language :: Python :: 3."
    classified = {line for line in PROJECT["classifiers"] if line.startswith(prefix)}

    pythons = {python for row in releases.ROWS for python in row.pythons}
    assert classified == {f"Programming Language :: Python :: {python}" for python in pythons}
    assert PROJECT["requires-python"] == f">=3.{min(int(p[2:]) for p in pythons)}"


# -- the schema ------------------------------------------------------------------------------------


def test_files_have_the_number_of_the_page(tmp_path: Path) -> None:
    xml = junit_writer.write_broken_cell(tmp_path, "2.13", "cpu", "no torch", "", {})
    (column,) = read(xml)
    side = json.loads(xml.with_suffix(".jsonl").read_text().splitlines()[0])

    assert side["header"]["schema"] == journal.SCHEMA
    assert column.facts["schema"] == str(journal.SCHEMA)
    assert f"the number of the schema that this page describes: {journal.SCHEMA} |" in PAGE
    assert f'{{"header": {{"schema": {journal.SCHEMA}, ' in PAGE


@pytest.mark.parametrize("schema", [0, journal.SCHEMA + 1, "x"])
def test_file_of_another_schema_is_refused(tmp_path: Path, schema: object) -> None:
    case = {"a/ddp-ws2-float32": cells.PASSED}
    xml = cells.write(tmp_path, "2.13", "cpu", case, schema=str(schema))
    side = tmp_path / "junit-x.jsonl"
    side.write_text(json.dumps({"header": {"schema": schema, "cases": []}}))

    with pytest.raises(Refused, match=f"schema {schema}; distparity .* reads schema 1"):
        read(xml)
    with pytest.raises(ValueError, match=f"schema {schema!r}; distparity .* reads schema 1"):
        junit_writer.write_from_journal(side)


def test_file_without_a_number_is_of_the_first_schema(tmp_path: Path) -> None:
    (column,) = read(cells.write(tmp_path, "2.13", "cpu", {"a/ddp-ws2-float32": cells.PASSED}))

    assert len(column.results) == 1
