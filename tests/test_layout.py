"""The two sides and the order of rooms: an import that breaks either is named by the linter."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]

#: An import that is added to a file, and the contract that it breaks.
PLANTED = {
    "torch in the controller": (
        "worlds/output.py",
        "import torch",
        "The controller imports no torch",
    ),
    "the torch side in the controller": (
        "session/cell.py",
        "from distparity.worker import tasks",
        "The controller imports no torch",
    ),
    "for types alone": (
        "core/case.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from distparity.scenarios import Scenario",
        "The controller imports no torch",
    ),
    "the controller in a rank": (
        "worker/leak_check.py",
        "from distparity.results import journal",
        "The torch side knows nothing of the controller",
    ),
    "pytest in a run": ("session/run.py", "import pytest", "Only pytest's plugin imports pytest"),
    "upwards": (
        "strategies/ddp.py",
        "from distparity.training import loop",
        "The torch side's rooms",
    ),
    "a circle within a room": (
        "operations/exact.py",
        "from distparity.operations import arithmetic",
        "No circles, at any depth",
    ),
}


def _lint(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["lint-imports", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_rooms_are_in_order(copy: Path) -> None:
    assert " 0 broken" in _lint(copy).stdout


@pytest.mark.parametrize(("file", "planted", "contract"), PLANTED.values(), ids=PLANTED)
def test_import_that_breaks_the_order_is_seen(
    copy: Path, file: str, planted: str, contract: str
) -> None:
    path = copy / "src" / "distparity" / file
    path.write_text(f"{path.read_text()}\n{planted}\n")

    done = _lint(copy)
    assert done.returncode == 1
    assert any(contract in line and line.endswith("BROKEN") for line in done.stdout.splitlines()), (
        done.stdout
    )


def test_no_package_and_module_of_it_import_each_other() -> None:
    """The linter's contract is about siblings."""
    graph = grimp.build_graph("distparity", cache_dir=None)

    both = [
        (package, module)
        for package in graph.modules
        for module in graph.find_children(package)
        if graph.direct_import_exists(importer=package, imported=module)
        and graph.direct_import_exists(importer=module, imported=package)
    ]
    assert both == []
