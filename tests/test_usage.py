"""Wrong command lines, and what each says: at once, in one process, without torch."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from distparity import cli
from distparity.cli import GROUPS, USAGE
from distparity.cli._parser import EXAMPLES
from distparity.core.case import Case
from distparity.session import arguments, names
from distparity.session.case_list import named_sizes
from distparity.worlds import start


class Replaced(Exception):
    """The process would have become pytest."""


class Unused:
    def discard(self) -> None:
        """Nothing was begun."""


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def become(program: str, words: list[str]) -> NoReturn:
        raise Replaced(words)

    monkeypatch.setattr(start, "ahead", lambda: None)
    monkeypatch.setattr(start, "take", Unused)
    monkeypatch.setattr(os, "execv", become)


#: By command line, after ``distparity``: what it says.
WRONG = {
    # commands
    "rnu": "unknown command 'rnu'; did you mean 'run'? known: run, join, list, doctor",
    "test": "unknown command 'test'; known: run, ",
    "--verison": "unknown option '--verison'; did you mean '--version'?",
    # devices
    "run --device cup": "unknown device 'cup'; did you mean 'cpu'? known: auto, cpu, cuda",
    "run --device cpu,cudaa": "unknown device 'cudaa'; did you mean 'cuda'?",
    "run --device=tpu9": "unknown device 'tpu9'; ",
    "doctor --device cup": "unknown device 'cup'; did you mean 'cpu'?",
    "selfcheck --device cup": "unknown device 'cup'; did you mean 'cpu'?",
    "explain basic/ddp-ws2-float32 --issue out.md": "--issue needs --program",
    "explain basic/ddp-ws2-float32 --good 2.8": "--good needs --issue",
    "explain basic/ddp-ws2-float32 --program out.py --mutant dropped_rank": "has no deliberate fault in it",
    "explain basic/ddp-ws2-float32 --device cup": "unknown device 'cup'; did you mean 'cpu'?",
    "calibrate --device cup": "unknown device 'cup'; did you mean 'cpu'?",
    "bisect --case basic/ddp-ws2-float32 --good 2.8 --bad 2.13 --device cup": "unknown device 'cup'; did you mean 'cpu'?",
    # cases, scenarios, strategies
    "run --case basik/ddp-ws2-float32": "unknown case 'basik/ddp-ws2-float32'; did you mean 'basic/ddp-ws2-float32'",
    "run --case basic/fsdp3-ws2-float32": "unknown case 'basic/fsdp3-ws2-float32'; did you mean 'basic/fsdp2-ws2-float32'",
    "run --case basic/ddp": "unknown case 'basic/ddp': an id is SCENARIO/STRATEGY-wsN-DTYPE; all of these are 'basic/ddp-ws*'",
    "run --case basicc": "unknown case 'basicc'; did you mean 'basic'",
    "run --case calls/basicc::ddp-ws2-float32-cpu": "unknown case 'calls/basicc::ddp-ws2-float32-cpu'; did you mean 'calls/basic::ddp-ws2-float32-cpu'",
    "run --scenario basik": "unknown scenario 'basik'; did you mean 'basic'",
    "run --scenario basic,nosuchthing": "unknown scenario 'nosuchthing'",
    "explain basik/ddp-ws2-float32": "unknown case 'basik/ddp-ws2-float32'; did you mean 'basic/ddp-ws2-float32'",
    "list basicc": "unknown case 'basicc'; did you mean 'basic'",
    "selfcheck --scenario basik": "unknown scenario 'basik'; did you mean 'basic'",
    "calibrate --scenario basik": "unknown scenario 'basik'; did you mean 'basic'",
    "bisect --case basik/ddp-ws2-float32 --good 2.8 --bad 2.13": "did you mean 'basic/ddp-ws2-float32'",
    # numbers
    "run --world-size two": "--world-size 'two': it takes whole numbers, for example 2,4",
    "run --world-size 3,": "--world-size '3,': it takes whole numbers, for example 2,4",
    "list --scenario boundary --world-size 3,5": "--select default --scenario boundary: it has no case with 3 or 5 ranks, but with 2",
    "list --scenario basic --select large": "--select large --scenario basic: it has no case",
    "list boundary/full_tensor-ws3-float64 --scenario boundary --world-size 3": "unknown case 'boundary/full_tensor-ws3-float64'; `distparity list` has the ids",
    "run --world-size 0": "world size 0: a world has at least 1 rank",
    "run --case-timeout 0": "time limit 0 s: it must be positive",
    "run --case-timeout soon": "argument --case-timeout: invalid float value: 'soon'",
    "run --worlds 0": "--worlds 0: it must be at least 1",
    "calibrate --seeds 0": "--seeds 0: it must be at least 1",
    "bisect --case basic/ddp-ws2-float32 --good 2.8 --bad 2.13 --runs 0": "--runs 0: it must be at least 1",
    # modules
    "run --include nosuch": "unknown module of --include 'nosuch'; it must be installed or in this folder",
    "run --include distparty": "unknown module of --include 'distparty'; did you mean 'distparity'",
    "run --device-plugin nosuch:Device": "unknown module of --device-plugin 'nosuch'",
    # mutants, torch releases
    "selfcheck --mutant nope": "unknown mutant 'nope'; known: control, sum_not_mean",
    "selfcheck --mutant sum_not_meen": "unknown mutant 'sum_not_meen'; did you mean 'sum_not_mean'",
    "explain basic/ddp-ws2-float32 --mutant dropped": "unknown mutant 'dropped'; did you mean 'dropped_rank'",
    # options
    "selfcheck --family ordre --mode late": "unknown family of mutants 'ordre'",
    "selfcheck --dev cpu": "unknown option '--dev'; did you mean '--device' or '--device-plugin'?",
    "report --stric": "unknown option '--stric'; did you mean '--strict'?",
    "run --select fast": "argument --select: invalid choice: 'fast' (choose from",
    "run --share-devices=x --device cpu": "--share-devices: the ranks on cpu share it anyway: remove the option",
    "explain": "the following arguments are required: case",
    "bundle": "name the reports",
    "expectations chek": "argument action: invalid choice: 'chek'",
}


@pytest.mark.parametrize(("words", "says"), WRONG.items(), ids=WRONG)
def test_wrong_command_line(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = cli.main(shlex.split(words))
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()

    assert code == USAGE
    assert says in said.err
    assert not said.out
    assert len(said.err.splitlines()) <= 2


RIGHT = (
    "run",
    "run 'basic/*' -k fsdp2 -x --lf --durations 5",
    "run --device cpu,cuda --world-size 2,4 --case 'basic/*' --scenario basic",
    "run --device mine --device-plugin cells:Mine",
    "run --case mine/own-ws2-float32 --include cells",
    "run calls/basic::fsdp2-ws2-float32-cpu --case collectives --case calls/basic",
)


@pytest.mark.parametrize("words", RIGHT)
def test_right_command_line_becomes_pytests(words: str) -> None:
    with pytest.raises(Replaced) as became:
        cli.main(shlex.split(words))

    assert became.value.args[0][-len(shlex.split(words)) + 1 or None :][-1] == (
        shlex.split(words)[-1] if words != "run" else str(Path(cli.__file__).parents[1])
    )


def test_every_command_has_a_group_and_an_example() -> None:
    commands = {path.stem for path in Path(cli.__file__).parent.glob("[!_]*.py")}

    assert {name for group in GROUPS.values() for name in group} == commands
    assert set(EXAMPLES) == commands | {""}


def test_distparity_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0

    said = capsys.readouterr().out
    assert "look at results:\n  report " in said
    assert "examples:\n  distparity doctor\n" in said


def _examples() -> list[str]:
    return [words for every in EXAMPLES.values() for words in every]


@pytest.mark.parametrize("words", _examples())
def test_examples_of_the_help_are_right(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = shlex.split(words.partition("  #")[0])
    if line[0] == "run":
        with pytest.raises(Replaced):
            cli.main(line)
    else:
        assert cli.parser().parse_args(line).command == line[0]


def test_shared_options_mean_the_same_in_every_command() -> None:
    words = ["--device", "cpu,sim", "--world-size", "2,4", "--scenario", "basic"]
    words += ["--device", "sim", "--world-size", "4,2", "--scenario", "basic"]
    found = [
        arguments.options(cli.parser().parse_args([name, *own, *words]))
        for name, own in (
            ("explain", ["basic/ddp-ws2-float32"]),
            ("selfcheck", []),
            ("calibrate", []),
        )
    ]

    assert all(one.devices == ["cpu", "sim"] for one in found)
    assert all((one.world_sizes, one.scenarios) == ([2, 4], ["basic"]) for one in found)
    assert arguments.options(cli.parser().parse_args(["selfcheck"])).devices == ["auto"]


CASE = Case("basic", "ddp", 2, "float32", "cpu")
NAMES = {
    "basic/ddp-ws2-float32": True,
    "basic/ddp-ws2-float32-cpu": True,
    "calls/basic::ddp-ws2-float32-cpu": True,
    "calls/basic::ddp-ws2-float32": True,
    "basic": False,
    "calls/basic": False,
    "calls": False,
}


@pytest.mark.parametrize(("name", "exact"), NAMES.items(), ids=NAMES)
def test_what_is_printed_names_a_case(name: str, exact: bool) -> None:
    own, groups = names.names_of("calls/basic", CASE.scenario, CASE.name, CASE.device)

    assert name in (own if exact else groups)


@pytest.mark.parametrize(
    ("words", "asked", "sizes"),
    [
        (["basic/ddp-ws8-float32"], [], {8}),
        (["basic/ddp-ws8-float32", "a/b-ws3-float64-cpu", "basic/*"], [], {3, 8}),
        (["basic/*-ws16-*"], [], {16}),
        (["basic/ddp-ws800-float32"], [], set()),
        (["basic/*", "calls"], [], set()),
        # What a person asks for by --world-size is all there is.
        (["basic/ddp-ws8-float32"], [2], set()),
    ],
)
def test_an_id_has_the_world_size_that_it_names(
    words: list[str], asked: list[int], sizes: set[int]
) -> None:
    options: Any = SimpleNamespace(cases=words, world_sizes=asked)

    assert named_sizes(options) == sizes


#: The words after ``list``, the first id, and how many there are.
LISTED = {
    "a pattern": (["basic/ddp-ws*"], "basic/ddp-ws2-float32", 4),
    "a world size": (["basic/fsdp2-*", "--world-size", "3"], "basic/fsdp2-ws3-float32", 2),
    "an operator": (["operator/sum-ws2-float64"], "operator/sum-ws2-float64", 1),
}


@pytest.mark.parametrize(("words", "first", "count"), LISTED.values(), ids=LISTED)
def test_ids_are_listed_without_torch(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    first: str,
    count: int,
) -> None:
    monkeypatch.setattr("distparity.cli.list.Launcher", None)

    assert cli.main(["list", *words]) == 0
    ids = capsys.readouterr().out.split()
    assert (ids[0], len(ids)) == (first, count)
    assert cli.main(["list", "--json", *words]) == 0
    assert [one["id"] for one in json.loads(capsys.readouterr().out)] == ids
