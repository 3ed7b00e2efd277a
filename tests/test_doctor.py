"""What ``distparity doctor`` says of devices that are here, absent, broken, wrong or too few."""

from __future__ import annotations

import datetime
import importlib
import inspect
import json
import re
import resource
import shlex
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Distparity
from test_devices import sim

from distparity import cli
from distparity.devices import examination
from distparity.session import arguments
from distparity.session import doctor as doctors
from distparity.session.options import Options

Doctor = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def doctor(tmp_path: Path, distparity: Distparity) -> Doctor:
    """Run it with the words given; returns its exit code and what its JSON says."""

    def run(*words: str, **variables: str) -> tuple[int, dict[str, Any]]:
        done = distparity("doctor", "--json", *words, cwd=tmp_path, **variables)
        return done.returncode, json.loads(done.stdout)

    return run


def steps(report: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    (device,) = (one for one in report["devices"] if one["kind"] == kind)
    return {step["name"]: step for step in device["steps"]}


def test_a_machine_with_a_cpu_alone_is_fit_for_it(doctor: Doctor) -> None:
    code, report = doctor()

    here = {device["kind"]: device["here"] for device in report["devices"]}
    assert here["cpu"] and not here["hpu"] and not here["npu"]
    assert {"torch", "built for"} <= {step["name"] for step in report["torch"]}
    assert all(step["error"] is None for step in report["machine"])
    assert (code, report["works"]) == (0, True)
    assert "No module named" in steps(report, "hpu")["load"]["error"]
    for name in ("all_reduce SUM", "reduce_scatter_tensor", "all_gather_into_tensor", "broadcast"):
        assert steps(report, "cpu")[f"2 ranks: {name}"]["answer"] == "correct"
    assert all(
        re.match(r"correct, \d+ checks|not supported: ", step["answer"])
        for name, step in steps(report, "cpu").items()
        if re.match("[248] ranks: .*, ", name)
    )
    for name in ("send_recv, batch", "all_to_all, list", "reduce, tensor", "gather, list"):
        assert f"2 ranks: {name}" in steps(report, "cpu")


def unreachable(*_: Any, **__: Any) -> Any:
    raise OSError("Cannot assign requested address")


@pytest.mark.parametrize(
    ("module", "name", "value", "step", "error"),
    [
        (doctors, "BEGINNING", datetime.date.max, "clock", "before the first supported torch"),
        (doctors, "LEAST_MEMORY", 1e6, "memory", "GiB is too little: a run needs 1e+06"),
        (resource, "getrlimit", lambda _: (20, 20), "file descriptors", "20 is too few"),
        (socket, "create_server", unreachable, "ports", "Cannot assign requested address"),
        (tempfile, "NamedTemporaryFile", unreachable, "temporary files", "OSError: "),
    ],
    ids=["clock", "memory", "file descriptors", "ports", "temporary files"],
)
def test_what_a_machine_lacks_is_an_error_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any, step: str, error: str
) -> None:
    monkeypatch.setattr(module, name, value)

    wrong = [one for one in doctors._machine() if one.error is not None]

    assert [one.name for one in wrong] == [step]
    assert error in str(wrong[0].error)
    assert wrong[0].advice


@pytest.mark.parametrize(
    ("name", "wrong", "optional"),
    [
        ("all_reduce AVG", False, True),
        ("all_reduce AVG", True, False),
        ("all_reduce SUM", False, False),
    ],
    ids=["refused, and can be done without", "wrong", "refused, and cannot be done without"],
)
def test_a_collective_may_be_refused_and_not_be_wrong(
    tmp_path: Path, name: str, wrong: bool, optional: bool
) -> None:
    def refuse() -> None:
        raise (examination.Unfit if wrong else RuntimeError)("no")

    log = str(tmp_path / "log")
    examination._step(log, name, refuse)
    (step,) = doctors._read(log, done=None)

    assert step.optional is optional
    assert step.advice


def test_numpy_is_asked_for_where_it_is_missing() -> None:
    assert doctors._numpy(None).advice == "pip install numpy"
    assert doctors._numpy("2.4.6").error is None


def test_the_command_that_asks_doctor_again_has_every_option() -> None:
    """Without what registers the backend, the same question would have another answer."""
    said = [
        "--device=cpu",
        "--backend=mine",
        "--include=json",
        "--device-plugin=json:Cpu",
    ]
    given = cli.parser().parse_args(["doctor", *said])
    broken = doctors.Examined("cpu", here=True, steps=[doctors.Step("barrier", error="it fails")])
    report = doctors.Report([], [], [broken], ["cpu"], arguments.options(given))

    again = shlex.split(doctors.lines(report)[-2])

    assert vars(cli.parser().parse_args(again[1:])) == vars(given)


@pytest.mark.parametrize(
    ("name", "step", "error", "advice"),
    [
        (
            "Absent",
            "load",
            "ImportError: libfaulty.so.1: cannot open shared object file",
            "install the driver or runtime that has libfaulty.so.1",
        ),
        ("Raises", "absent", "Raises fails in absent(): OSError: no such ioctl", "absent(): Why"),
        ("Miscounts", "count", "answers 'two' in count(), expected int", "count(): How many"),
        (
            "Forgets",
            "backend",
            "answers None in backend(), expected str",
            "backend(): The backend for",
        ),
        ("SeedFails", "seed", "fails in seed(): RuntimeError: generator 0 is busy", "seed(): Seed"),
        ("Aborts", "synchronize", "killed by SIGABRT", "synchronize(): Wait until"),
        ("Alone", "ranks", "1 device is too few: 2 ranks need 2", "--share-devices puts two ranks"),
    ],
)
def test_what_fails_first_is_named_with_what_to_do(
    doctor: Doctor, name: str, step: str, error: str, advice: str
) -> None:
    plugin = ["--device-plugin", f"faulty_devices:{name}", "--device", "faulty"]

    code, report = doctor(*plugin)

    failed = [one for one in steps(report, "faulty").values() if one["error"]]
    assert (code, report["works"]) == (1, False)
    assert failed[0]["name"] == step
    assert error in failed[0]["error"]
    assert failed[0]["advice"].startswith(advice)
    again = next(iter(doctors.lines(_report(report, plugin))[-2:]))
    assert again == f"distparity doctor --device faulty --device-plugin faulty_devices:{name}"


def _report(found: dict[str, Any], words: list[str]) -> doctors.Report:
    """The report of a JSON output, as the process had it that was started with these words."""
    devices = [
        doctors.Examined(
            one["kind"], one["here"], [doctors.Step(**s) for s in one["steps"]], one["next"]
        )
        for one in found["devices"]
    ]
    options = Options(devices=[words[3]], plugins=[words[1]])
    return doctors.Report([], [], devices, found["wanted"], options)


MISSING = {
    "library": (
        "libfaulty.so.1: cannot open shared object file",
        "runtime that has libfaulty.so.1,",
    ),
    "other": ("cannot import name 'x'", "install what the device's package needs"),
}


@pytest.mark.parametrize(("text", "advice"), MISSING.values(), ids=MISSING)
def test_what_is_not_installed_is_to_be_installed(tmp_path: Path, text: str, advice: str) -> None:
    def fail() -> None:
        raise RuntimeError("failed to load the backend") from ImportError(text)

    examination._step(str(tmp_path / "log"), "load", fail)
    (step,) = doctors._read(str(tmp_path / "log"), done=None)

    assert doctors._is_absence(step)
    assert step.advice is not None and step.advice.startswith("install ") and advice in step.advice


def test_a_missing_module_names_its_package(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    examination._step(log, "load", lambda: importlib.import_module("no_such_driver"))

    assert doctors._read(log, done=None)[0].advice == (
        "install the Python package that has the module no_such_driver"
    )


def test_one_device_is_enough_where_ranks_share_it(doctor: Doctor) -> None:
    plugin = ["--device-plugin", "faulty_devices:Alone", "--device", "faulty"]

    code, report = doctor(*plugin, "--share-devices")

    assert (code, report["works"]) == (0, True)
    assert " --share-devices=auto " in report["devices"][0]["next"]


@sim
@pytest.mark.parametrize(
    ("variables", "step", "error"),
    [
        pytest.param(
            {"SIM_FAULT": "drop-rank"}, "2 ranks: all_reduce SUM", "element 0 is 0, expected 100",
            id="wrong",
        ),
        pytest.param(
            {"SIM_NO_AVG": "undeclared"}, "2 ranks: all_reduce AVG", "ReduceOp.AVG is not supported",
            id="missing, and can be declared",
        ),
        pytest.param({}, None, "", id="right"),
    ],
)  # fmt: skip
def test_collectives_are_held_against_plain_arithmetic(
    doctor: Doctor, variables: dict[str, str], step: str | None, error: str
) -> None:
    code, report = doctor("--device", "sim", **variables)

    failed = {one["name"]: one for one in steps(report, "sim").values() if one["error"]}
    assert code == int(any(not one["optional"] for one in failed.values()))
    assert next(iter(failed), None) == step
    assert step is None or error in failed[step]["error"]


def test_every_collective_that_fails_has_advice() -> None:
    source = inspect.getsource(examination._collectives)
    named = set(re.findall(r'yield "(.+?)"', source))

    # An AVG that is refused is no failure, and has advice where it is tried.
    assert named - {"all_reduce AVG"} == doctors.OTHERWISE.keys() - {"start"}
    assert examination._advice("all_reduce AVG")
