"""Devices: how they come to be known, what a fault in one says, and a real one from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from conftest import CORE_ONLY, Suite, environment

from distparity import devices
from distparity.core import device_kinds
from distparity.devices import Device, PluginError, numerics
from distparity.devices.guard import Guard
from distparity.session import device_search
from distparity.worlds.device_pool import Held, Pool
from distparity.worlds.world import Answer, Failure

IN_THE_BOX = ["cpu", "cuda", "xpu", "hpu", "npu"]


class Fake(Device):
    kind = "fake"

    def count(self) -> int:
        return 3


class Other(Device):
    kind = "other"


def boom(*_: Any) -> Any:
    raise ValueError("boom")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages with an entry point each, one of which is misnamed."""
    points = [
        EntryPoint("fake", "test_devices:Fake", "distparity.devices"),
        EntryPoint("alias", "test_devices:Other", "distparity.devices"),
        EntryPoint("gone", "no_such_module:Gone", "distparity.devices"),
    ]
    monkeypatch.setattr(device_kinds, "points", lambda: points)
    monkeypatch.setattr(devices, "_plugged", {})
    devices.get.cache_clear()


def test_third_parties_are_listed_and_not_imported(installed: None) -> None:
    assert devices.kinds() == [*IN_THE_BOX, "alias", "fake", "gone", "accelerator"]


def test_an_entry_point_is_a_device(installed: None) -> None:
    assert devices.get("fake").kind == "fake"
    assert devices.get("fake").count() == devices.get("fake").most_ranks() == 3


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "alias",
            "alias (test_devices:Other) has the kind 'other', expected 'alias'",
        ),
        (
            "gone",
            "gone (no_such_module:Gone) cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'",
        ),
    ],
)
def test_an_entry_point_at_fault_is_named(installed: None, kind: str, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        devices.get(kind)

    assert str(caught.value) == f"the device plug-in {message}"


def test_what_is_installed_of_a_device_is_its_packages_or_its_own() -> None:
    class Vendor(Device):
        kind = "vendor"
        packages = ("no_such_package", "json")

    assert Vendor().installed() == "json"
    assert Fake().installed() == "test_devices"
    assert devices.get("npu").installed() == ""


def test_what_is_plugged_goes_before_what_is_installed(installed: None) -> None:
    before = devices.get("fake")

    assert devices.plug("test_devices:Fake") == "fake"
    assert devices.get("fake") is not before


@pytest.mark.parametrize(
    ("method", "answer", "arguments", "message"),
    [
        ("count", lambda: 2.5, (), "answers 2.5 in count(), expected int"),
        ("environment", lambda rank: {"INDEX": 3}, (0,), "answers {'INDEX': 3} in environment(), expected a dict of str to str"),
        ("sharing", lambda: ["gloo"], (), "answers ['gloo'] in sharing(), expected a list of Sharing, with patterns that do not match everything"),
        ("absent", lambda: False, (), "answers False in absent(), expected str or None"),
        ("peak_memory", lambda: "1 GB", (), "answers '1 GB' in peak_memory(), expected int or None"),
        ("groups", lambda: [[0, 1], [1]], (), "answers [[0, 1], [1]] in groups(), expected lists of indices, each index once"),
        ("groups", lambda: [0, 1], (), "answers [0, 1] in groups(), expected lists of indices, each index once"),
        ("backend", boom, (), "fails in backend(): ValueError: boom"),
        ("seed", boom, (1,), "fails in seed(): ValueError: boom"),
        ("exact", boom, (), "fails in exact(): ValueError: boom"),
    ],
)  # fmt: skip
def test_the_guard_names_plugin_and_method(
    method: str, answer: Any, arguments: tuple[int, ...], message: str
) -> None:
    fake = Fake()
    setattr(fake, method, answer)

    with pytest.raises(PluginError) as caught:
        getattr(Guard(fake, "fake (somewhere:Fake)"), method)(*arguments)

    assert str(caught.value) == f"the device plug-in fake (somewhere:Fake) {message}"


class Declares(Device):
    kind = "fake"
    no_reductions: ClassVar = ["AVG"]  # type: ignore[assignment]  # the fault
    refuses: ClassVar = {"(": "no such thing"}
    start_seconds = "long"  # type: ignore[assignment]  # the fault
    slowness = "very"  # type: ignore[assignment]  # the fault

    @property
    def exclusive(self) -> bool:  # type: ignore[override]  # the fault
        return bool(boom())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_reductions", "answers ['AVG'] in no_reductions, expected a dict of str to str"),
        ("refuses", "answers {'(': 'no such thing'} in refuses, expected a dict of regular expressions that do not match everything, to str"),
        ("start_seconds", "answers 'long' in start_seconds, expected a number"),
        ("slowness", "answers 'very' in slowness, expected a number"),
        ("exclusive", "fails in exclusive: ValueError: boom"),
    ],
)  # fmt: skip
def test_the_guard_names_what_is_declared_wrong(name: str, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        getattr(Guard(Declares(), "fake (somewhere:Fake)"), name)

    assert str(caught.value) == f"the device plug-in fake (somewhere:Fake) {message}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Absent", "the device 'faulty' was requested but is not available: faulty: ImportError: libfaulty.so.1: cannot open shared object file"),
        ("Raises", "the device plug-in faulty_devices:Raises fails in absent(): OSError: no such ioctl"),
        ("Miscounts", "the device plug-in faulty_devices:Miscounts answers 'two' in count(), expected int"),
        ("Forgets", "the device plug-in faulty_devices:Forgets answers None in backend(), expected str"),
        ("NotADevice", "the device plug-in faulty_devices:NotADevice is a NotADevice, not a distparity.devices.Device"),
        ("Nameless", "the device plug-in faulty_devices:Nameless has the kind None, expected 'a device type'"),
        ("Nowhere", "the device plug-in faulty_devices:Nowhere cannot be loaded: AttributeError: module 'faulty_devices' has no attribute 'Nowhere'"),
    ],
)  # fmt: skip
def test_a_plugin_at_fault_is_one_clear_error_and_a_red_cell(
    suite: Suite, name: str, message: str
) -> None:
    ran = suite("--device-plugin", f"faulty_devices:{name}", "--device", "faulty")

    assert ran.code == 4
    assert f"ERROR: {message}" in ran.output
    assert ran.text("here-faulty", "cell/start").splitlines()[0] == f"error: {message}"


def test_a_plugin_that_fails_in_a_case_is_named_in_the_outcome(suite: Suite) -> None:
    case = "multiple_forward/ddp-ws2-float32"
    plugin = ["--device-plugin", "faulty_devices:SeedFails"]

    ran = suite(*plugin, "--device", "faulty", "--case", case)

    assert ran.code == 1
    assert ran.statuses("here-faulty") == {case: "error"}
    assert (
        "the device plug-in faulty_devices:SeedFails fails in seed(): "
        "RuntimeError: generator 0 is busy"
    ) in ran.text("here-faulty", case).splitlines()[0]


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        (Answer([{"start_seconds": 300.0}], [[]], 0.1), 420.0),
        (Failure("crash", "died"), 120.0),
    ],
    ids=["declared", "not known"],
)
def test_a_device_is_asked_how_long_it_takes_before_it_is_probed(answer: Any, limit: float) -> None:
    job = device_search._probe("slow")

    first: Any = next(job)
    probe: Any = job.send(answer)

    assert (first.name, probe.name, probe.limit) == ("patience", "probe", limit)


# -- packages that torch loads by itself -----------------------------------------------------------


def announce(folder: Path, function: str) -> str:
    """Install what torch loads while it is imported; returns the path to look for modules on."""
    info = folder / "announced-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: announced\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[torch.backends]\nannounced = announced:{function}\n")
    return os.pathsep.join([str(folder), environment()["PYTHONPATH"]])


def test_what_torch_would_load_is_loaded_in_ranks_that_know_their_device(
    suite: Suite, tmp_path: Path
) -> None:
    words = ["--device-plugin", "faulty_devices:Announced", "--device", "announced"]

    ran = suite(*words, "--case", DDP, PYTHONPATH=announce(tmp_path, "start"))

    assert ran.statuses("here-announced") == {DDP: "passed"}
    assert "announced: loaded with index 0, 2 devices" in ran.output


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "accelerator: installed (announced"),
        ({device_kinds.AUTOLOAD: "0"}, "TORCH_DEVICE_BACKEND_AUTOLOAD=0: packages that announce a"),
    ],
    ids=["broken", "autoload off"],
)
def test_a_device_that_is_installed_and_not_usable_is_named_everywhere(
    suite: Suite, tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    path = announce(tmp_path, "broken")

    ran = suite("--device", "auto", "--case", DDP, PYTHONPATH=path, **variables)

    assert ran.statuses("here-cpu") == {DDP: "passed"}
    assert ran.code == 0
    # In the header and in the summary.
    assert ran.output.count(said) == 2
    facts = {p.name: p.value for p in ran.suite("here-cpu").properties()}
    assert facts["distparity.not_usable"].startswith(said)


def test_a_driver_that_is_missing_is_why_there_is_no_accelerator(
    suite: Suite, tmp_path: Path
) -> None:
    ran = suite("--device", "accelerator", PYTHONPATH=announce(tmp_path, "broken"))

    assert ran.code == 4
    assert (
        "accelerator: ImportError: Failed to load the backend extension: announced." in ran.output
    )
    assert "OSError('libannounced.so.1: cannot open shared object file')" in ran.output


# -- which devices a world is on -------------------------------------------------------------------


BOARDS = Pool(4, groups=((0, 1), (2, 3)))


@pytest.mark.parametrize(
    ("pool", "size", "others", "indices"),
    [
        pytest.param(Pool(8), 2, [], (0, 1), id="the first"),
        pytest.param(Pool(8), 2, [(0, 1), (4,)], (2, 3), id="beside others"),
        pytest.param(Pool(4), 3, [(1,)], (0, 2, 3), id="around others"),
        pytest.param(Pool(2), 2, [(1,)], None, id="too few"),
        pytest.param(BOARDS, 2, [], (0, 1), id="one board"),
        pytest.param(BOARDS, 2, [(1,)], (2, 3), id="the board that is free"),
        pytest.param(BOARDS, 2, [(1,), (2,)], None, id="half of two boards"),
        pytest.param(BOARDS, 3, [], None, id="more than a board"),
        pytest.param(Pool(6, groups=((0, 1, 2, 3), (4, 5))), 2, [], (4, 5), id="the smallest"),
        pytest.param(Pool(3, groups=((2,), (1,))), 1, [(2,)], (1,), id="in no group"),
        pytest.param(Pool(1, sharing="gloo"), 4, [], (0, 0, 0, 0), id="shared"),
        pytest.param(Pool(2, sharing="gloo"), 4, [(0, 0)], (1, 1, 1, 1), id="shared, beside"),
        pytest.param(Pool(1, sharing="gloo"), 2, [(0, 0)], None, id="shared, too few"),
    ],
)
def test_worlds_are_on_devices_of_their_own(
    pool: Pool, size: int, others: list[tuple[int, ...]], indices: tuple[int, ...] | None
) -> None:
    held = pool.take(size, [Held(other) for other in others])

    assert (held and held.indices) == indices
    assert held is None or not held.clashes([Held(other) for other in others])


# -- a device for real -----------------------------------------------------------------------------


def _no_sim() -> str:
    """Why the host-memory device cannot be used here; empty where it can."""
    try:
        version("distparity-sim")
    except PackageNotFoundError:
        return "distparity-sim is not installed: pip install tests/sim_device"
    major, minor = map(int, version("torch").split(".")[:2])
    return "" if (major, minor) >= (2, 10) else f"torch {major}.{minor} has no devices in Python"


sim = pytest.mark.skipif(bool(_no_sim()), reason=_no_sim())

DDP = "multiple_forward/ddp-ws2-float32"
CORE = "/ddp- or /fsdp1- or /fsdp2- or /single-"
#: Enough for several worlds at once.
SEED = [
    word
    for how in ("ddp", "fsdp1", "fsdp1_orig_params", "fsdp2")
    for word in ("--case", f"multiple_forward/{how}-ws2-float32")
]
FSDP1 = "multiple_forward/fsdp1-ws2-float32"
FSDP2 = "multiple_forward/fsdp2-ws2-float32"


@sim
def test_the_suite_is_green_on_a_device_of_its_own(suite: Suite, tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    ran = suite(
        "--device",
        "sim",
        "-k",
        f"multiple_forward and {CORE_ONLY}",
        "--include",
        "witness",
        WITNESS=str(witness),
    )

    assert ran.code == 0, ran.output
    statuses = ran.statuses("here-sim")
    assert {statuses[case] for case in (DDP, FSDP1, FSDP2)} == {"passed"}
    assert set(statuses.values()) <= {"passed", "not supported"}
    seen = set(witness.read_text().splitlines())
    assert seen >= {f"{kind} on sim over simccl" for kind in ("Ddp", "Fsdp1", "Fsdp2")}
    # The oracle alone is elsewhere, and what it is compared with needs no process group.
    assert {line for line in seen if "on sim over simccl" not in line} == {
        "Single on cpu over none",
        "Reference on sim over none",
    }


@sim
def test_conjugates_and_loaded_storages_are_right_on_it(suite: Suite) -> None:
    """Neither is in the capsules by which its tensors change sides; one was wrong, the other crashed."""
    conjugates, loaded = "complex_numbers/ddp-ws2-float32", "multiple_forward/zero1-ws4-float32"

    ran = suite("--device", "sim", "--case", conjugates, "--case", loaded)

    assert ran.statuses("here-sim") == {conjugates: "passed", loaded: "not supported"}


#: Views that torch keeps as a bit of the tensor, each read and written on this device and on the CPU.
VIEWS = """
import torch
from distparity_sim import register
register()

def through_conjugate(t):
    t.conj().add_(1j)
    return t

def through_negative(t):
    t.conj().imag.mul_(3)
    return t

for view in (
    lambda t: t.conj(),
    lambda t: t.conj().imag,
    lambda t: t.conj().imag.sum(0),
    lambda t: t.conj().T @ t,
    lambda t: torch.cat([t.conj(), t])[1:, ::2],
    through_conjugate,
    through_negative,
):
    host = torch.complex(torch.arange(15.0), torch.ones(15)).view(5, 3)
    print(torch.equal(view(host.to("sim")).cpu(), view(host)))
"""


@sim
def test_conjugates_and_negatives_are_read_and_written_as_on_the_cpu() -> None:
    ran = subprocess.run([sys.executable, "-c", VIEWS], check=False, capture_output=True, text=True)

    assert (ran.stdout.split(), ran.stderr) == (["True"] * 7, "")


@sim
def test_results_are_the_same_without_the_log_of_collectives(suite: Suite) -> None:
    """torch keeps no record of this backend's collectives, so that we keep ours. Delays change nothing."""
    words = ["--device", "sim", "--case", DDP, "--case", FSDP1, "--case", FSDP2]
    results = []
    for more in ([], ["--no-log"], ["--perturb", "5"]):
        found = suite(*words, *more).properties("here-sim")
        results.append(
            {
                case: {key: facts[key] for key in ("status", "ratio", "largest_error")}
                for case, facts in found.items()
            }
        )

    assert results[0] == results[1] == results[2]
    assert {facts["status"] for facts in results[0].values()} == {"passed"}


@sim
def test_the_generic_device_runs_what_torch_calls_the_accelerator(suite: Suite) -> None:
    ran = suite("--device", "accelerator,cpu", "--case", DDP, "--case", FSDP2, SIM_AUTOLOAD="1")

    assert ran.code == 0, ran.output
    for cell in ("here-accelerator", "here-cpu"):
        assert ran.statuses(cell) == {DDP: "passed", FSDP2: "passed"}
    assert "accelerator: sim, host memory" in ran.output


@sim
@pytest.mark.parametrize(
    ("variables", "case", "message", "below"),
    [
        pytest.param(
            {"SIM_FAULT": "drop-rank"}, DDP,
            "failed: step 0, gradient 'inner.weight', rank 0: off by ",
            "looks like: rank 1's contribution missing from the sum",
            id="an all-reduce that drops a rank",
        ),
        pytest.param(
            {"SIM_FAULT": "async-copy"}, DDP,
            "failed: step 0, gradient 'inner.weight', rank 0: off by ",
            "largest ratio of error to allowed error, by step:",
            id="a copy that is not waited for, read too early",
        ),
        pytest.param(
            {"SIM_FAULT": "async-copy"}, FSDP2,
            "failed: step 0, gradient 'inner.weight', rank 0: not finite at ",
            "found nan",
            id="a copy that is not waited for, into fresh memory",
        ),
        pytest.param(
            {"SIM_FAULT": "hang"}, DDP,
            "timeout: no answer within 10 s: hang: rank ",
            "in hang",
            id="a collective that hangs",
        ),
        pytest.param(
            {"SIM_FAULT": "die"}, DDP,
            "crash: rank 1 killed by SIGABRT",
            "sim: device 0 is lost",
            id="a device that dies",
        ),
        pytest.param(
            {"SIM_NO_AVG": "undeclared"}, FSDP2,
            "failed: rank [01] raised RuntimeError: ReduceOp.AVG is not supported by simccl",
            "in reduce_scatter",
            id="a reduction that is missing, undeclared",
        ),
    ],
)  # fmt: skip
def test_what_a_vendor_sees(
    suite: Suite, variables: dict[str, str], case: str, message: str, below: str
) -> None:
    limit = "10" if variables.get("SIM_FAULT") == "hang" else "60"

    ran = suite("--device", "sim", "--case", case, "--case-timeout", limit, **variables)

    assert ran.code == 1
    assert re.match(message, ran.text("here-sim", case))
    assert below in ran.text("here-sim", case)


def ranks_on(folder: Path, size: int) -> dict[str, set[str]]:
    """By device, the ranks of worlds of a size that took it."""
    found = {file.name: set(file.read_text().split()) for file in folder.iterdir()}
    mine = {
        name: {rank for rank in ranks if rank.endswith(f"/{size}")} for name, ranks in found.items()
    }
    return {name: ranks for name, ranks in mine.items() if ranks}


@sim
def test_worlds_that_run_at_once_are_on_different_devices(suite: Suite, tmp_path: Path) -> None:
    ran = suite("--device", "sim", *SEED, "--worlds", "6", SIM_FOLDER=str(tmp_path))

    assert set(ran.statuses("here-sim").values()) == {"passed"}
    assert ranks_on(tmp_path, 2) == {
        "device0": {"0/2"}, "device1": {"1/2"}, "device2": {"0/2"}, "device3": {"1/2"},
    }  # fmt: skip


@sim
def test_a_device_that_a_process_keeps_is_handed_on_when_it_ends(
    suite: Suite, tmp_path: Path
) -> None:
    keeps = {"SIM_EXCLUSIVE": "1", "SIM_DEVICE_COUNT": "2", "SIM_FOLDER": str(tmp_path)}

    ran = suite("--device", "sim", *SEED, "--worlds", "6", **keeps)

    assert set(ran.statuses("here-sim").values()) == {"passed"}, ran.output
    assert ranks_on(tmp_path, 2) == {"device0": {"0/2"}, "device1": {"1/2"}}


@sim
def test_ranks_that_share_a_device_are_another_cell(suite: Suite, tmp_path: Path) -> None:
    one = {"SIM_DEVICE_COUNT": "1", "SIM_FOLDER": str(tmp_path)}

    ran = suite("--device", "sim,cpu", "--case", DDP, "--case", FSDP2, "--share-devices", **one)

    assert ran.code == 0, ran.output
    assert (
        ran.statuses("here-sim-shared")
        == ran.statuses("here-cpu")
        == {DDP: "passed", FSDP2: "passed"}
    )
    facts = {p.name: p.value for p in ran.suite("here-sim-shared").properties()}
    assert facts["distparity.shared_devices"] == "yes, by simccl"
    assert facts["distparity.device"] == "sim-shared"
    assert not (ran.folder / "junit-here-sim.xml").exists()
    assert ranks_on(tmp_path, 2) == {"device0": {"0/2", "1/2"}}
    assert "--share-devices=auto" in ran.properties("here-sim-shared")[DDP]["rerun"]


@sim
def test_ranks_without_a_device_each_are_not_available(suite: Suite) -> None:
    ran = suite("--device", "sim", "--case", DDP, SIM_DEVICE_COUNT="1")

    assert ran.code == 1
    assert ran.text("here-sim", DDP) == (
        "not available: sim: 2 ranks need 2 devices, and device_count() is 1"
    )


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "Here",
            ["--share-devices"],
            "faulty: ranks cannot share a device as requested: no way is known",
        ),
        (
            "Shares",
            ["--share-devices=mps"],
            "faulty: ranks cannot share a device as requested: only in these ways: gloo",
        ),
    ],
)
def test_a_device_that_cannot_be_shared_says_so(
    suite: Suite, name: str, words: list[str], message: str
) -> None:
    plugin = ["--device-plugin", f"faulty_devices:{name}", "--device", "faulty"]

    ran = suite(*plugin, *words)

    assert ran.code == 4
    assert message in ran.output


@pytest.mark.parametrize(
    ("words", "cell", "status"),
    [
        (["--share-devices"], "here-faulty-shared", "not supported"),
        ([], "here-faulty", "failed"),
    ],
    ids=["in that way", "and in no other"],
)
def test_what_cannot_be_done_on_a_shared_device_is_not_supported(
    suite: Suite, words: list[str], cell: str, status: str
) -> None:
    plugin = ["--device-plugin", "faulty_devices:SharesInPart", "--device", "faulty"]
    case = "refused_alone/ddp-ws2-float32"

    ran = suite(*plugin, "--include", "refused_alone", *words, "--case", case)

    assert ran.statuses(cell) == {case: status}
    assert ("faulty: gloo transfers nothing" in ran.text(cell, case)) == bool(words)


@sim
def test_what_a_device_refuses_in_declared_words_is_not_supported(suite: Suite) -> None:
    case = "multiple_forward/fsdp2_cpu_offload-ws2-float32"

    ran = suite("--device", "sim", "--case", case, "--case", DDP)

    assert ran.statuses("here-sim") == {case: "not supported", DDP: "passed"}
    assert re.match(
        "not supported: sim: a device in Python has no pinned memory: torch .* says rank ",
        ran.text("here-sim", case),
    )


@sim
def test_a_declared_restriction_is_worked_around(suite: Suite) -> None:
    ran = suite("--device", "sim", "--case", FSDP2, SIM_NO_AVG="declared")

    assert ran.statuses("here-sim") == {FSDP2: "passed"}


@sim
@pytest.mark.parametrize(
    ("fault", "bits", "repeatable", "line"),
    [
        pytest.param("", "23", "yes", "", id="what the dtypes promise"),
        pytest.param("tf32", "10", "yes", "float32 matrix products keep 10 of 23 bits", id="tf32"),
        pytest.param("waver", "21", "no", "differs from run to run", id="it wavers"),
    ],
)
def test_the_arithmetic_of_a_device_is_measured_and_allowed_for(
    suite: Suite, fault: str, bits: str, repeatable: str, line: str
) -> None:
    ran = suite("--device", "sim", "--case", DDP, SIM_FAULT=fault)

    facts = {p.name: p.value for p in ran.suite("here-sim").properties()}
    case = ran.properties("here-sim")[DDP]
    # One process on the device is as far from the oracle as two ranks are: no fault of theirs.
    assert ran.statuses("here-sim") == {DDP: "passed"}
    assert facts["distparity.numerics_matmul_float64_bits"] == "52"
    assert facts["distparity.numerics_matmul_float32_bits"] == bits
    assert facts["distparity.numerics_repeatable"] == repeatable
    assert (float(case["nondeterminism"]) > 0) == (repeatable == "no")
    # Rounding alone is about 1e-7.
    assert (float(case["largest_error"]) > 1e-5) == (fault == "tf32")
    assert line in ran.output


@sim
@pytest.mark.parametrize(
    ("words", "cell", "bits"),
    [
        pytest.param([], "sim", "23", id="exact"),
        pytest.param(["--arithmetic", "default"], "sim-default", "10", id="default"),
    ],
)
def test_a_device_is_told_to_be_exact_unless_its_own_arithmetic_is_asked_for(
    suite: Suite, words: list[str], cell: str, bits: str
) -> None:
    ran = suite("--device", "sim", "--case", DDP, *words, SIM_FAULT="tf32-unless-exact")

    facts = {p.name: p.value for p in ran.suite(f"here-{cell}").properties()}
    case = ran.properties(f"here-{cell}")[DDP]
    assert facts["distparity.numerics_matmul_float32_bits"] == bits
    assert facts["distparity.arithmetic"] == (words[-1] if words else "exact")
    assert case["status"] == "passed"
    assert (float(case["largest_error"]) > 1e-5) == bool(words)


@sim
def test_the_command_to_rerun_has_the_arithmetic(suite: Suite) -> None:
    ran = suite("--device", "sim", "--case", DDP, "--arithmetic", "default", SIM_FAULT="drop-rank")

    case = ran.properties("here-sim-default")[DDP]
    assert case["status"] == "failed"
    assert "--arithmetic default" in case["rerun"]


@pytest.mark.parametrize("how", ["matmul", "convolution"])
@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 23), (torch.float64, 52)])
def test_products_of_the_cpu_keep_what_their_dtype_has(
    dtype: torch.dtype, bits: int, how: str
) -> None:
    assert numerics.kept_bits(torch.device("cpu"), dtype, how) == bits


# -- the kinds in the box, without their hardware --------------------------------------------------


class FakeTorch:
    """Calls that the shipped kinds make to torch, on simulated machines."""

    def __init__(self, cuda: str | None, hip: str | None, collectives: tuple[int, ...]) -> None:
        def switch() -> SimpleNamespace:
            return SimpleNamespace(allow_tf32=True, benchmark=True)

        self.__version__ = "2.13.0"
        self.version = SimpleNamespace(cuda=cuda, hip=hip)
        self.cuda = SimpleNamespace(
            nccl=SimpleNamespace(version=lambda: collectives),
            get_device_name=lambda index: "a GPU",
            is_available=lambda: True,
            device_count=lambda: 8,
            set_device=self._took,
            current_device=lambda: self.taken[-1],
        )
        self.taken: list[int] = []
        self.deterministic: list[bool] = []
        self.backends = SimpleNamespace(cuda=SimpleNamespace(matmul=switch()), cudnn=switch())

    def _took(self, index: int) -> None:
        self.taken.append(index)

    def use_deterministic_algorithms(self, mode: bool, *, warn_only: bool) -> None:
        self.deterministic.append(mode and warn_only)

    @staticmethod
    def device(kind: str, index: int) -> str:
        return f"{kind}:{index}"


@pytest.mark.parametrize(
    ("cuda", "hip", "collectives", "version", "name", "ways"),
    [
        ("12.4", None, (2, 20, 5), "NCCL 2.20.5", "a GPU (CUDA 12.4)", ["gloo"]),
        ("13.2", None, (2, 30, 7), "NCCL 2.30.7", "a GPU (CUDA 13.2)", ["gloo", "nccl"]),
        (None, "6.4", (2, 30, 1), "RCCL 2.30.1", "a GPU (ROCm 6.4)", ["gloo"]),
    ],
    ids=["cuda, older NCCL", "cuda, NCCL that shares", "rocm"],
)
def test_cuda_and_rocm_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, hip: str | None,
    collectives: tuple[int, ...], version: str, name: str, ways: list[str],
) -> None:  # fmt: skip
    torch = FakeTorch(cuda, hip, collectives)
    monkeypatch.setitem(sys.modules, "torch", torch)
    device = devices.get("cuda")

    assert device.absent() is None
    assert (device.count(), device.most_ranks()) == (8, 8)
    assert (device.backend_version(), device.describe()) == (version, name)
    assert [way.name for way in device.sharing()] == ways
    # Only where gloo is given a GPU's memory.
    assert [bool(way.refuses) for way in device.sharing()] == [way == "gloo" for way in ways]
    # A world beside another is not on the devices that its ranks' numbers say.
    assert (device.take(5), torch.taken) == ("cuda:5", [5])
    device.exact()
    assert torch.deterministic == [True]
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_this_torch_takes_the_switches_of_cuda_without_a_word() -> None:
    # The switches exist without a GPU, and torch 2.9 has begun to replace some of them.
    script = """
import torch
from distparity import devices
from distparity.worker.leak_check import Snapshot

devices.get("cuda").exact()
print(torch.get_float32_matmul_precision(), Snapshot(devices.get("cpu")).left_behind())
"""

    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "highest []\n"


@pytest.mark.parametrize(
    ("visible", "index", "module"),
    [("", 3, "3"), ("4,5,6,7", 1, "5"), ("4,5", 3, "3")],
    ids=["all are ours", "some are ours", "fewer than asked for"],
)
def test_a_gaudi_module_is_chosen_before_anything_is_imported(
    monkeypatch: pytest.MonkeyPatch, visible: str, index: int, module: str
) -> None:
    monkeypatch.setenv("HABANA_VISIBLE_MODULES", visible)
    monkeypatch.delenv("PT_HPU_LAZY_MODE", raising=False)

    found = devices.get("hpu").environment(index)

    assert found == {"PT_HPU_LAZY_MODE": "0", "HLS_MODULE_ID": module}


@pytest.mark.parametrize(
    ("mine", "found"),
    [({}, "lo"), ({"NCCL_SOCKET_IFNAME": "eth1"}, "eth1")],
    ids=["on loopback", "where the user says"],
)
def test_what_nccl_reads_is_set_before_there_is_a_group(
    monkeypatch: pytest.MonkeyPatch, mine: dict[str, str], found: str
) -> None:
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    for name, value in mine.items():
        monkeypatch.setenv(name, value)

    assert devices.get("cuda").environment(3) == {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "NCCL_SOCKET_IFNAME": found,
    }


@pytest.mark.parametrize(
    ("distributed", "backend"),
    [
        (SimpleNamespace(), "cpu:gloo,xpu:ccl"),
        (SimpleNamespace(is_xccl_available=lambda: False), "cpu:gloo,xpu:ccl"),
        (SimpleNamespace(is_xccl_available=lambda: True), "cpu:gloo,xpu:xccl"),
    ],
    ids=["torch 2.5", "torch 2.7", "torch 2.8"],
)
def test_the_collectives_of_xpu_are_those_that_torch_says_it_has(
    monkeypatch: pytest.MonkeyPatch, distributed: SimpleNamespace, backend: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(distributed=distributed))

    assert devices.get("xpu").backend() == backend


def test_an_npu_computes_float32_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch(None, None, ())
    matmul, conv = SimpleNamespace(allow_hf32=False), SimpleNamespace(allow_hf32=True)
    torch.npu = SimpleNamespace(matmul=matmul, conv=conv)  # type: ignore[attr-defined]  # as torch_npu does
    monkeypatch.setitem(sys.modules, "torch", torch)

    devices.get("npu").exact()

    assert (matmul.allow_hf32, conv.allow_hf32) == (False, False)
    assert torch.deterministic == [True]
