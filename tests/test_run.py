"""The suite as its user meets it: what it prints, writes, refuses, and leaves behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CORE, CORE_ONLY, Distparity, Ran, Suite, environment, run_words
from warm import PATIENCE

NAMES = [
    f"multiple_forward/{strategy}-ws{size}-{dtype}"
    for strategy in CORE
    for size in (2, 4)
    for dtype in ("float32", "float64")
]


#: One case on one device, whatever else is installed beside.
ONE = ("--device", "cpu", "--case", NAMES[0])


@pytest.fixture(scope="module")
def whole(suite: Suite) -> Ran:
    return suite("--device", "cpu", "-k", f"multiple_forward and {CORE_ONLY}")


def test_every_case_passes_and_has_its_facts(whole: Ran) -> None:
    assert whole.code == 0, whole.output
    facts = whole.properties("here-cpu")
    assert sorted(facts) == NAMES
    for name, found in facts.items():
        assert found["status"] == "passed", name
        assert 0 < float(found["ratio"]) < 1
        assert 0 < float(found["largest_error"]) < 1e-5
        assert float(found["seconds_in_ranks"]) > 0
        assert name.endswith(f"{found['strategy']}-ws{found['world_size']}-{found['dtype']}")


def test_every_property_is_on_the_page_of_the_interface(whole: Ran) -> None:
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    written = {name for facts in whole.properties("here-cpu").values() for name in facts}
    written |= {one.name for one in whole.suite("here-cpu").properties()}

    assert {name for name in written if f"`{name}`" not in page} == set()


def test_what_a_strategy_does_not_promise_is_not_supported_with_the_fact(suite: Suite) -> None:
    ran = suite("-m", "core", "-k", "begin_apart and float32", "--world-size", "2")

    assert ran.statuses("here-cpu") == {
        "begin_apart/ddp-ws2-float32": "passed",
        "begin_apart/fsdp1-ws2-float32": "not supported",
        "begin_apart/fsdp1_orig_params-ws2-float32": "not supported",
        "begin_apart/fsdp2-ws2-float32": "not supported",
    }
    text = ran.text("here-cpu", "begin_apart/fsdp2-ws2-float32")
    assert "fully_shard takes each rank's own shard and broadcasts nothing" in text


def test_suite_properties_name_the_cell(whole: Ran) -> None:
    suite = whole.suite("here-cpu")
    facts = {p.name.removeprefix("distparity."): p.value for p in suite.properties()}

    assert suite.name == "distparity torch here cpu"
    assert facts["cell"] == "here-cpu"
    assert facts["device"] == "cpu"
    assert facts["backend"] == "gloo"
    assert facts["world_sizes"] == "2, 4"
    assert facts["torch"][0].isdigit()
    assert len(facts["torch_git"]) == 40
    assert int(facts["declared"]) == suite.tests == len(list(suite))
    assert "--device cpu" in facts["command"]
    assert facts["ended"] == "finished"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(
            ["--world-size", "2", "-k", "multiple_forward/fsdp2-ws"],
            [f"multiple_forward/fsdp2-ws2-{d}" for d in ("float32", "float64")],
            id="keywords and one size",
        ),
        pytest.param(["--case", NAMES[0]], [NAMES[0]], id="one case by id"),
        pytest.param(
            ["--world-size", "1,3", "-k", "multiple_forward/ddp-ws and float64"],
            ["multiple_forward/ddp-ws1-float64", "multiple_forward/ddp-ws3-float64"],
            id="odd sizes",
        ),
    ],
)
def test_selection(suite: Suite, words: list[str], expected: list[str]) -> None:
    ran = suite("--device", "cpu", *words)

    assert ran.code == 0, ran.output
    assert ran.statuses("here-cpu") == dict.fromkeys(expected, "passed")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "gpu"], "unknown device 'gpu'; did you mean 'xpu'"),
        (["--world-size", "0"], "world size 0: a world has at least 1 rank"),
        (["--world-size", "-2"], "world size -2: a world has at least 1 rank"),
        (["--world-size", "two"], "--world-size 'two': it takes whole numbers, for example 2,4"),
        (["--world-size", "1000"], "world size 1000: cpu supports at most 64 ranks here"),
        (["--case", "multiple_forward/ddp"], "unknown case 'multiple_forward/ddp'"),
        (["--case-timeout", "0"], "time limit 0 s: it must be positive"),
        (["--report-dir", "/proc/reports"], "cannot write reports to /proc/reports"),
        (["--include", "no_such_module"], "unknown module of --include 'no_such_module'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_request_is_one_clear_error(suite: Suite, words: list[str], message: str) -> None:
    ran = suite(*words)

    assert ran.code == 4
    assert f"ERROR: {message}" in ran.output or message in ran.output.splitlines()[0]
    assert "INTERNALERROR" not in ran.output


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        (["--device", "xpu"], ["here-xpu"]),
        (["--device", "cpu,xpu"], ["here-cpu", "here-xpu"]),
        (["--device", "xpu", "--share-devices"], ["here-xpu-shared"]),
    ],
    ids=["alone", "beside another", "shared"],
)
def test_absent_device_asked_for_by_name_is_an_error_and_every_cell_red(
    suite: Suite, words: list[str], cells: list[str]
) -> None:
    ran = suite(*words)

    assert ran.code == 4
    assert "the device 'xpu' was requested but is not available" in ran.output
    assert sorted(path.stem for path in ran.folder.glob("*.xml")) == [f"junit-{c}" for c in cells]
    for cell in cells:
        assert ran.statuses(cell) == {"cell/start": "error"}


def test_part_of_a_run_leaves_the_report_of_the_whole(
    tmp_path: Path, distparity: Distparity
) -> None:
    """Also when it does not begin: what a failure prints can be pasted where the report is."""
    version = torch.__version__
    xml = tmp_path / "reports" / f"junit-{version}-cpu.xml"
    xml.parent.mkdir()
    xml.write_text("a whole cell of yesterday")
    for word in (NAMES[0], "multiple_forward/ddp"):
        distparity(*run_words("--device", "cpu", "--case", word), cwd=tmp_path)
        assert xml.read_text() == "a whole cell of yesterday"
        assert (tmp_path / "reports-part" / xml.name).stat().st_size > 0


#: What ends a run before its first case, and after torch and the devices were looked at.
ENDED = {
    "no such world": (["--world-size", "999"], "world size 999: cpu supports at most 64 ranks"),
    "another device": (["--device", "xpu"], "the device 'xpu' was requested but is not available"),
    "no such file": (["--expectations", "no.toml"], "no.toml: cannot be read"),
}


@pytest.mark.parametrize(("words", "message"), ENDED.values(), ids=ENDED)
def test_run_that_does_not_begin_leaves_no_cell_as_it_was(
    tmp_path: Path, distparity: Distparity, words: list[str], message: str
) -> None:
    """Without ``--cell``: the cell has torch's version in its name, as in a run that goes well."""
    version = torch.__version__
    xml = tmp_path / "reports" / f"junit-{version}-cpu.xml"
    xml.parent.mkdir()
    xml.write_text("a green cell of yesterday")
    done = distparity(*run_words("--device", "cpu", *words), cwd=tmp_path)

    ran = Ran(done.returncode, done.stderr, xml.parent)
    assert ran.code == 4
    assert message in ran.output
    assert ran.statuses(f"{version}-cpu") == {"cell/start": "error"}
    assert message in ran.text(f"{version}-cpu", "cell/start")


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--device", "cpu", "--collect-only", "--case", "no/such-ws2-float32"],
        ["explain", "no/such-ws2-float32"],
    ],
    ids=["collect-only", "explain"],
)
def test_what_is_no_run_leaves_every_cell_as_it_was(
    tmp_path: Path, distparity: Distparity, words: list[str]
) -> None:
    xml = tmp_path / "reports" / f"junit-{torch.__version__}-cpu.xml"
    xml.parent.mkdir()
    xml.write_text("a green cell of yesterday")
    done = distparity(*words, cwd=tmp_path)

    assert done.returncode == 4
    assert "unknown case 'no/such-ws2-float32'" in done.stderr
    assert xml.read_text() == "a green cell of yesterday"


def test_torch_that_does_not_import_is_an_error_and_a_red_cell(
    suite: Suite, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99: cannot open')")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])

    ran = suite(PYTHONPATH=path)

    assert ran.code == 4
    assert "torch cannot be imported: ImportError: libcudart.so.99" in ran.output
    assert "libcudart.so.99" in ran.text("here-cpu", "cell/start")


def test_run_in_which_all_was_skipped_is_no_success(suite: Suite) -> None:
    only = "multiple_forward and /refusing"
    ran = suite("--device", "cpu", "--include", "refusing_strategy", "-k", only)

    assert set(ran.statuses("here-cpu").values()) == {"not supported"}
    assert ran.code == 1
    assert "the run fails: every case on the named device cpu was skipped" in ran.output
    text = ran.text("here-cpu", "multiple_forward/refusing-ws2-float32")
    assert "refusing on this device: torch" in text
    assert "says RuntimeError: mat1 and mat2 shapes cannot be multiplied" in text


RAISE = ("refusing_strategy", "built_for_cpu", "refused_alone", "mistaken_alone", "wrong_average")


@pytest.fixture(scope="module")
def raised(suite: Suite) -> Ran:
    """Cases of several included modules, one or two of each."""
    cases = [parameters.values[0] for parameters in RAISED]
    words = [word for module in RAISE for word in ("--include", module)]
    words += [word for case in (*cases, AVERAGE) for word in ("--case", str(case))]
    return suite("--device", "cpu", *words)


AVERAGE = "wrong_average/ddp-ws2-float32"
RAISED = [
    pytest.param(
        "multiple_forward/mistaken-ws2-float32",
        "failed",
        " raised RuntimeError: shapes cannot be multiplied",
        id="a strategy that raises what its limit says is wrong",
    ),
    pytest.param(
        "multiple_forward/ddp_bf16_hook-ws2-float32",
        "not supported",
        "says TypeError: BF16 all reduce communication hook required",
        id="a hook that torch was not built for",
    ),
    pytest.param(
        "refused_alone/ddp-ws2-float32",
        "failed",
        "failed: the oracle failed in one process: rank 0 raised RuntimeError: mat1 and mat2",
        id="torch refuses in one process",
    ),
    pytest.param(
        "mistaken_alone/ddp-ws2-float32",
        "error",
        "error: the oracle failed: rank 0 raised RuntimeError: shapes cannot",
        id="a scenario that raises by itself is no fault of torch",
    ),
]


def test_only_named_cases_run(raised: Ran) -> None:
    named = {*(str(parameters.values[0]) for parameters in RAISED), AVERAGE}
    assert set(raised.statuses("here-cpu")) == named


@pytest.mark.parametrize(("case", "status", "text"), RAISED)
def test_who_raised_decides(raised: Ran, case: str, status: str, text: str) -> None:
    assert raised.statuses("here-cpu")[case] == status
    assert text in raised.text("here-cpu", case)


def test_state_that_is_forgotten_everywhere_is_seen(suite: Suite) -> None:
    cases = [f"resume/{strategy}-ws2-float64" for strategy in ("ddp", "fsdp1", "fsdp2")]

    ran = suite("--include", "forgetful_torch", *(w for case in cases for w in ("--case", case)))

    assert ran.statuses("here-cpu") == dict.fromkeys(cases, "failed")
    assert "looks like: optimizer state lost" in ran.text("here-cpu", cases[0])


def test_what_one_process_computes_wrong_is_wrong_before_any_rank_is_judged(raised: Ran) -> None:
    assert raised.statuses("here-cpu")[AVERAGE] == "failed"
    assert "wrong numbers in one process: step 0, buffer 'average'" in raised.text(
        "here-cpu", AVERAGE
    )
    assert raised.properties("here-cpu")[AVERAGE]["one_process"] == "wrong"


def test_reference_runs_use_nothing_of_torch_distributed() -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("references_alone.py"))],
        env=environment(),
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
    )

    found = json.loads(done.stdout)
    assert found["wrong"] == {}
    assert found["forbidden"] > 1000
    assert found["scenarios"] > 90


def test_ids_of_what_is_included_are_listed(distparity: Distparity, tmp_path: Path) -> None:
    done = distparity("list", "--include", "sometimes", "basic/some*-ws2-*", cwd=tmp_path)

    assert done.stdout.split() == ["basic/sometimes-ws2-float32"]


def test_limit_that_does_not_hold_skips_nothing(suite: Suite) -> None:
    ran = suite(
        "--include", "refusing_strategy", "-k", "multiple_forward and outdated", "--world-size", "2"
    )

    assert set(ran.statuses("here-cpu").values()) == {"passed"}


DEAD = {
    "dead_scenarios": "the gradient is negligible",
    "dead_twins": "every rank has the same gradient",
    "dead_parameter": "aside.weight: the gradient is negligible",
    "dead_step": "the parameter does not move",
    "changing": "two runs in one process differ",
}


@pytest.fixture(scope="module")
def dead(suite: Suite) -> Ran:
    words = [word for name in DEAD for word in ("--include", name)]
    return suite(*words, "-k", f"({' or '.join(DEAD)}) and ddp and float32 and ws2")


@pytest.mark.parametrize(("scenario", "why"), DEAD.items())
def test_scenario_that_shows_nothing_is_an_error_of_the_scenario(
    dead: Ran, scenario: str, why: str
) -> None:
    assert dead.statuses("here-cpu")[f"{scenario}/ddp-ws2-float32"] == "error"
    text = dead.text("here-cpu", f"{scenario}/ddp-ws2-float32")
    assert re.search(f"scenario '{scenario}' is no evidence: .*{re.escape(why)}", text)


def test_side_file_alone_makes_the_xml(whole: Ran) -> None:
    journal = whole.folder / "junit-here-cpu.jsonl"
    journal.with_suffix(".xml").unlink()
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:4]) + '{"case": "mul')

    done = subprocess.run(
        [sys.executable, "-m", "distparity", "junit", journal], capture_output=True, check=False
    )

    assert done.returncode == 0
    statuses = list(whole.statuses("here-cpu").values())
    declared = json.loads(journal.read_text().splitlines()[0])["header"]["cases"]
    assert len(statuses) == len(declared)
    assert statuses.count("passed") == 3
    assert statuses.count("missing") == len(declared) - 3


def test_plugin_stays_out_of_other_suites(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "def pytest_addoption(parser): parser.addoption('--device', default='their own')"
    )
    pytester.makepyfile("def test_it(request): assert request.config.option.device == 'their own'")

    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert not (pytester.path / "reports").exists()


def test_run_loads_nothing_of_the_folder_it_is_in(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(**{"tests/conftest": "raise SystemExit('loaded')"})
    pytester.makeini("[pytest]\naddopts = --no-such-option")

    done = pytester.run(sys.executable, "-m", "distparity", "run", *ONE)

    done.assert_outcomes(passed=1)
    assert list((pytester.path / "reports").glob("junit-*-cpu.xml"))


def test_pytest_by_itself_runs_the_suite(pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_subprocess("--pyargs", "distparity", *ONE)

    done.assert_outcomes(passed=1)
    assert list((pytester.path / "reports").glob("junit-*-cpu.xml"))


def test_process_that_runs_pytest_imports_no_torch(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "import sys\ndef pytest_unconfigure(): print('torch' in sys.modules and 'TORCH' or 'FREE')"
    )

    words = ["-p", "conftest", "--pyargs", "distparity", *ONE]
    done = pytester.runpytest_subprocess(*words)

    done.stdout.fnmatch_lines(["FREE"])


def test_pytest_options_mean_what_they_mean_elsewhere(
    tmp_path: Path, distparity: Distparity
) -> None:
    """Cases are under way before pytest comes to them, which none of its options may show."""
    wanted = "multiple_forward and float32 and ws2 and (wrong_sum or wrong_local or /ddp-ws)"
    words = ["--device=cpu", "--cell=here", "--include=wrong_strategies", "-v", "-k", wanted]

    def run(*more: str) -> list[str]:
        """The cases that pytest tells of, in its order, and its lines on their durations."""
        done = distparity("run", *words, *more, cwd=tmp_path)
        told = re.compile(r"::(\w+)-ws2-float32-cpu (PASSED|FAILED)|([\d.]+)s call .*::(\w+)-ws2")
        return ["-".join(filter(None, found)) for found in told.findall(done.stdout)]

    assert run() == ["ddp-PASSED", "wrong_local-FAILED", "wrong_sum-FAILED"]
    assert run("-x") == ["ddp-PASSED", "wrong_local-FAILED"]
    assert run("--ff") == ["wrong_local-FAILED", "wrong_sum-FAILED", "ddp-PASSED"]
    *cases, slowest = run("--lf", "--durations=1", "--durations-min=0")
    assert cases == ["wrong_local-FAILED", "wrong_sum-FAILED"]
    side = (tmp_path / "reports" / "junit-here-cpu.jsonl").read_text().splitlines()
    facts = [json.loads(line)["outcome"]["facts"] for line in side if '"outcome"' in line]
    longest = max(facts, key=lambda found: float(found["seconds_in_ranks"]))
    assert slowest == f"{longest['seconds_in_ranks']:.2f}-{longest['strategy']}"
