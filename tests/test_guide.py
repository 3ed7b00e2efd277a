"""The vendor guide: its commands, one after the other, print what it says that they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conftest import TESTS, Distparity, Suite, environment
from test_devices import DDP, sim
from warm import PATIENCE

GUIDE = (TESTS.parent / "docs" / "new-device.md").read_text(encoding="utf-8")
#: Installing is for a machine that has nothing, and the whole column takes many minutes.
ELSEWHERE = (
    "pip ",
    "nox ",
    "distparity run --device sim --world-size 2",
    "distparity run --cells",
    "distparity report",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command with the lines that are printed below it."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, *printed = part.splitlines()
            yield line.partition("  #")[0].strip(), printed


def missing(printed: Iterable[str], output: str) -> list[str]:
    """The lines that the output does not have, in their order; no two runs have the same numbers."""
    lines = iter([_without_numbers(line) for line in output.splitlines()])
    return [line for line in printed if not any(map(_pattern(line).fullmatch, lines))]


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(re.escape(_without_numbers(line)).replace(re.escape("..."), ".*"))


def _without_numbers(line: str) -> str:
    return re.sub(r"\b[0-9a-f]{40}\b|\b\d[\w.+-]*(?<!\.)", "0", line.strip())


@pytest.mark.parametrize(
    ("printed", "output", "lost"),
    [
        (["a 1.5e-07 b", "c"], "x\na 3 b\ny\nc", []),
        (["c", "a"], "a\nc", ["a"]),
        (["timeout: 10 s: ..."], "timeout: 20 s: rank 1", []),
        (["passed"], "1 failed", ["passed"]),
    ],
    ids=["in order", "out of order", "cut short", "not there"],
)
def test_a_line_that_is_not_printed_is_missed(
    printed: list[str], output: str, lost: list[str]
) -> None:
    assert missing(printed, output) == lost


@sim
def test_commands_of_the_guide_print_what_it_says(tmp_path: Path, distparity: Distparity) -> None:
    """A run is started by the tests' own means; the others as a person starts them."""
    (tmp_path / "mine.toml").write_text(blocks("toml")[-1], encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    wrong: list[str] = []

    def by_bash(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment(PATH=path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    for command, printed in commands():
        if command.startswith(ELSEWHERE):
            continue
        before, run, words = command.partition("distparity run ")
        if run:
            variables = dict(word.split("=", 1) for word in before.split())
            ours = ["run", *shlex.split(words)]
            done = distparity(*ours, cwd=tmp_path, together=True, **variables)
        else:
            done = by_bash(command)
        fails = any(re.match(r"(failed|timeout|crash): ", line) for line in printed)
        if done.returncode != int(fails) or missing(printed, done.stdout):
            lost = "\n".join(missing(printed, done.stdout))
            wrong.append(f"$ {command}\n{done.stdout}\nexit code {done.returncode}; lost: {lost}")

    assert not wrong, "\n\n".join(wrong)


@sim
def test_device_of_the_guide_is_all_that_a_vendor_writes(suite: Suite, tmp_path: Path) -> None:
    imports = "from __future__ import annotations\nfrom distparity.devices import Device\n"
    (tmp_path / "guided.py").write_text(imports + blocks("python")[0], encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])

    ran = suite(
        "--device-plugin", "guided:Sim", "--device", "sim", "--case", DDP, PYTHONPATH=path
    )  # fmt: skip

    assert ran.statuses("here-sim") == {DDP: "passed"}


def test_entry_point_of_the_guide_is_the_one_of_the_package() -> None:
    package = (TESTS / "sim_device" / "pyproject.toml").read_text(encoding="utf-8")

    assert blocks("toml")[0] in package
