"""The process that imports torch, started before the program that will want it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distparity.worlds import start

#: What comes between the start and the program that takes over -> whether it has the same process.
BETWEEN = {
    "nothing": ("", True),
    "pytest's own variables": ("os.environ['PYTEST_VERSION'] = '9'", True),
    "another variable": ("os.environ['TORCH_LOGS'] = ''", False),
    "a variable less": ("del os.environ['HOME']", False),
    "another folder": ("os.chdir('/')", False),
    "another place to import from": ("sys.path.append('/somewhere')", False),
    "it has ended": ("os.kill(pid, 9)", True),
    "it is somebody else's": ("pid = os.fork() and sys.exit(os.wait()[1])", False),
}
FIRST = """
import os, sys
from distparity.worlds import start
start.ahead()
os.execv(sys.executable, [sys.executable, "-m", "second"])
"""
SECOND = """
import json, os, sys, time
from distparity.worlds import start
pid = json.loads(os.environ[start.VARIABLE])[0]
ahead = pid
{between}
found = start.take()
assert start.VARIABLE not in os.environ
print(found.pid == ahead, ahead)
found.discard()
"""


@pytest.mark.parametrize(("between", "same"), BETWEEN.values(), ids=BETWEEN)
def test_process_is_taken_over_when_nothing_has_changed(
    tmp_path: Path, between: str, same: bool
) -> None:
    (tmp_path / "first.py").write_text(FIRST)
    (tmp_path / "second.py").write_text(SECOND.format(between=between))
    done = subprocess.run(
        [sys.executable, "-m", "first"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    taken, pid = done.stdout.split()

    assert taken == str(same), done.stderr
    assert_gone(int(pid))


@pytest.mark.parametrize("words", [["--no-such-option"], ["--device", "nothing"], ["--version"]])
def test_run_that_comes_to_nothing_leaves_no_process(tmp_path: Path, words: list[str]) -> None:
    mark = f"START_{os.getpid()}_{time.monotonic_ns()}"
    command = [sys.executable, "-m", "distparity", "run", *words]
    subprocess.run(
        command, cwd=tmp_path, env={**os.environ, mark: ""}, capture_output=True, check=False
    )

    for path in Path("/proc").glob("[0-9]*"):
        if mark in environment(path):
            assert_gone(int(path.name))


def environment(process: Path) -> str:
    try:
        return (process / "environ").read_text(errors="replace")
    except OSError:
        return ""


def assert_gone(pid: int) -> None:
    """The kernel kills it when its parent has ended; that may take a moment."""
    until = time.monotonic() + 10
    while (path := Path(f"/proc/{pid}/stat")).exists() and time.monotonic() < until:
        if path.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    assert not path.exists()


#: What a process imports from before, and whether this folder is added: a command's script has it not.
PATHS = {
    "a script": (["/bin", "/lib"], True),
    "python -m": (["{here}", "/lib"], False),
    "python -c": (["", "/lib"], False),
}


@pytest.mark.parametrize(("before", "added"), PATHS.values(), ids=PATHS)
def test_modules_of_the_folder_are_found_last_by_every_command(
    before: list[str], added: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = [one.format(here=tmp_path) for one in before]
    monkeypatch.setattr(sys, "path", known)

    assert start._path() == [*known, *([str(tmp_path)] * added)]


def test_a_script_finds_an_included_module_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from distparity.scenarios.calls.basic import Basic\n\n\nclass OfMine(Basic):\n    pass\n"
    )
    case = "mine/ddp-ws2-float32"
    words = ["explain", "--device", "cpu", "--include", "mine", case]
    script = Path(sys.executable).with_name("distparity")

    done = subprocess.run(
        [script, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{case}: passed: ")
