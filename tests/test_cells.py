"""What a cell is: a device, a backend, axes of a vendor's; and the file that names cells."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distparity.cli.run import _of_cells
from distparity.core import device_kinds
from distparity.core.bad_request import BadRequest
from distparity.core.naming import cell_name
from distparity.devices import PluginError, backends, plug
from distparity.devices.base import Device
from distparity.releases import NoSuchCell
from distparity.releases.cells import read
from distparity.session import arguments, wording
from distparity.session.options import Options

NAMES = {
    "device": ({}, "xpu"),
    "shared": ({"shared": True}, "xpu-shared"),
    "backend": ({"marks": ["ccl"]}, "xpu+ccl"),
    "backends": ({"marks": ["cpu:gloo,xpu:ccl"]}, "xpu+cpu=gloo+xpu=ccl"),
    "axes": ({"marks": ["ccl", "card=B-M G"]}, "xpu+ccl+card=B_M_G"),
    "all": ({"marks": ["a"], "shared": True, "arithmetic": "default"}, "xpu+a-shared-default"),
}


@pytest.mark.parametrize(("more", "name"), NAMES.values(), ids=NAMES)
def test_the_name_of_a_cell_has_what_makes_it_another(more: dict[str, Any], name: str) -> None:
    given = {"shared": False, "arithmetic": "exact", **more}

    assert cell_name("xpu", **given) == name
    # As ci/check_reports.py takes it apart.
    assert re.fullmatch(r"[^-]+(?:-shared)?(?:-default)?", name)


REFUSED: dict[str, dict[str, Any]] = {
    "auto": {},
    "two": {"devices": ["cpu", "xpu"]},
    "required": {"devices": ["auto", "xpu"]},
    "shared": {"devices": ["xpu"], "sharing": "auto"},
}


@pytest.mark.parametrize("more", REFUSED.values(), ids=REFUSED)
def test_a_backend_is_one_devices(more: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="--backend: it needs one named --device"):
        Options(backend="ccl", **more).check()

    Options(devices=["xpu"], backend="ccl").check()


@pytest.mark.parametrize("axis", ["card", "card=", "Card=BMG", "=BMG"])
def test_an_axis_has_a_name_and_a_value(axis: str) -> None:
    with pytest.raises(BadRequest, match="it is NAME=VALUE"):
        arguments.options(SimpleNamespace(device=["cpu"], axis=[axis]))


def test_the_command_to_rerun_has_backend_and_axes() -> None:
    given = SimpleNamespace(device=["xpu"], axis=["card=BMG", "mode=lazy"], backend="ccl")
    options = arguments.options(given)

    words = ["--device", "xpu", "--backend", "ccl", "--axis", "card=BMG", "--axis", "mode=lazy"]
    assert wording.where("xpu", options) == words


class Fake(Device):
    kind = "fake"

    def backend(self) -> str:
        return "own"


class Cpu(Fake):
    kind = "cpu"


def register() -> None:
    REGISTERED.append("mine")


REGISTERED: list[str] = []


def test_a_named_backend_is_registered_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("mine", "test_cells:register", "distparity.backends"),
        EntryPoint("gloo", "no_such_module:never", "distparity.backends"),
        EntryPoint("gone", "no_such_module:gone", "distparity.backends"),
    ]
    monkeypatch.setattr(device_kinds, "backends", lambda: points)
    monkeypatch.setattr(backends, "_chosen", None)
    assert backends.of(Fake()) == "own"

    backends.choose("cpu:gloo,fake:mine")
    assert backends.of(Fake()) == "cpu:gloo,fake:mine"
    assert REGISTERED == ["mine"]

    backends.choose("gone")
    with pytest.raises(PluginError, match=r"gone .* cannot be registered: ModuleNotFoundError"):
        backends.of(Fake())


def test_the_cpu_is_not_replaced() -> None:
    with pytest.raises(PluginError, match="has the kind 'cpu': for a backend of your own"):
        plug("test_cells:Cpu")


FILE = """
[[cell]]
name = "bmg"
device = "xpu"
backend = "ccl"
axes = { card = "BMG" }
environment = { ZE_AFFINITY_MASK = "0,1" }
selection = "quick"
expectations = ["mine.toml"]
runner = "bmg-2"
options = ["--world-size=2"]

[[cell]]
name = "plain"
device = "cpu"
"""


def test_cells_are_data(tmp_path: Path) -> None:
    path = tmp_path / "cells.toml"
    path.write_text(FILE)

    bmg, plain = read(path)

    assert (bmg.title, plain.title) == ("xpu+ccl+card=BMG", "cpu")
    assert bmg.words() == [
        "--device=xpu",
        "--select=quick",
        "--backend=ccl",
        "--axis=card=BMG",
        f"--expectations={tmp_path / 'mine.toml'}",
        "--world-size=2",
    ]
    assert [cell.name for cell in read(path, "plain")] == ["plain"]


WRONG = {
    "no file": (None, "No such file"),
    "no cell": ("x = 1", "it has tables"),
    "unknown key": ("[[cell]]\nname = 'a'\ndevice = 'cpu'\nrunners = 'x'", "unknown key 'runners'"),
    "no device": ("[[cell]]\nname = 'a'", "a cell has no device"),
    "type": ("[[cell]]\nname = 'a'\ndevice = 'cpu'\naxes = { a = 1 }", "it takes strings"),
    "twice": ("[[cell]]\nname = 'a'\ndevice = 'cpu'\n" * 2, "two cells have the name 'a'"),
    "one title": (
        "[[cell]]\nname = 'a'\ndevice = 'cpu'\n[[cell]]\nname = 'b'\ndevice = 'cpu'\n",
        "two cells have the title 'cpu'",
    ),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "cells.toml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(NoSuchCell, match=says):
        read(path)


def test_an_unknown_cell_is_named_with_the_known(tmp_path: Path) -> None:
    (tmp_path / "cells.toml").write_text(FILE)

    with pytest.raises(NoSuchCell, match="no cell 'x'; there are: bmg, plain"):
        read(tmp_path / "cells.toml", "x")


def test_the_matrix_of_jobs_has_the_cells_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "cells.toml").write_text(FILE)
    program = str(Path(__file__).parents[1] / "ci" / "matrix.py")
    words = [sys.executable, program, "--tag", "stable", "--cells-from", "cells.toml"]

    done = subprocess.run(words, cwd=tmp_path, stdout=subprocess.PIPE, check=True)

    jobs = {job["cell"]: job for job in json.loads(done.stdout)["include"]}
    assert jobs["2.13-xpu+ccl+card=BMG"] == {
        "cell": "2.13-xpu+ccl+card=BMG",
        "session": "tests-2.13",
        "device": "xpu",
        "options": "--cells cells.toml --only bmg",
        "runner": "bmg-2",
        "python": "3.12",
    }
    assert jobs["2.13-cpu"]["options"] == "--cells cells.toml --only plain --wheel cpu"
    # There is no torch 2.4 for this device.
    assert "2.4-xpu+ccl+card=BMG" not in jobs


# -- distparity run --cells ------------------------------------------------------------------------


def test_one_cell_of_a_file_is_words_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cells.toml").write_text(FILE)
    monkeypatch.setenv("ZE_AFFINITY_MASK", "")
    words = ["--cells", str(tmp_path / "cells.toml"), "--only", "bmg", "-x", "basic"]
    (cell,) = read(tmp_path / "cells.toml", "bmg")

    assert _of_cells(words) == [*cell.words(), "-x", "basic"]
    assert os.environ["ZE_AFFINITY_MASK"] == "0,1"
    assert _of_cells(["--device=cpu"]) == ["--device=cpu"]


@pytest.mark.parametrize(("codes", "expected"), [([0, 0], 0), ([1, 0], 1), ([0, 4], 4)])
def test_cells_of_a_file_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: list[int], expected: int
) -> None:
    (tmp_path / "cells.toml").write_text(FILE)
    ran: list[list[str]] = []

    def run(command: list[str], **how: Any) -> Any:
        ran.append(command[4:])
        return subprocess.CompletedProcess(command, codes[len(ran) - 1])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit) as ended:
        _of_cells(["--cells", str(tmp_path / "cells.toml"), "-x"])

    assert ended.value.code == expected
    assert ran == [[*cell.words(), "-x"] for cell in read(tmp_path / "cells.toml")]


def test_a_cell_that_there_is_not_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells.toml").write_text(FILE)

    with pytest.raises(BadRequest, match="there is no cell 'x'"):
        _of_cells(["--cells", str(tmp_path / "cells.toml"), "--only", "x"])
