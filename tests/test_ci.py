"""What ci/ has: definitions that name what there is, and a check that finds what is wrong."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cells
import jenkins
import pytest
import yaml

from distparity import expectations, releases
from distparity.cli import run
from distparity.core.outcome import Outcome, Status
from distparity.releases.cells import read as read_cells
from distparity.results import junit_writer
from distparity.results.journal import Journal, paths
from distparity.session import arguments

CI = Path(__file__).parents[1] / "ci"


def _run(script: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CI / script, *words], cwd=cwd, capture_output=True, text=True, check=False
    )


# -- the job matrix --------------------------------------------------------------------------------


def test_jobs_are_the_table() -> None:
    jobs = json.loads(_run("matrix.py").stdout)["include"]

    installed = [row for row in releases.ROWS if row is not releases.LOCAL]
    assert [job["session"] for job in jobs] == [row.session for row in installed]
    assert [job["cell"] for job in jobs] == [f"{row.name}-cpu" for row in installed]
    for job, row in zip(jobs, installed, strict=True):
        assert job["python"] in row.pythons


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        (["--tag", "local", "--device", "hpu"], ["local-hpu"]),
        (["--tag", "nightly", "--device", "cpu", "xpu"], ["nightly-cpu", "nightly-xpu"]),
        (["--device", "xpu"], [f"{r.name}-xpu" for r in releases.ROWS if "xpu" in r.sources]),
    ],
    ids=["local", "nightly", "xpu"],
)
def test_cells_that_are_asked_for(words: list[str], cells: list[str]) -> None:
    assert _run("matrix.py", "--cells", *words).stdout.split() == cells


def test_a_cell_over_several_jobs_is_one_cell() -> None:
    jobs = json.loads(_run("matrix.py", "--tag", "nightly", "--shards", "2").stdout)["include"]
    child = yaml.safe_load(
        _run("matrix.py", "--gitlab", "--tag", "nightly", "--shards", "2").stdout
    )

    assert [job["cell"] for job in jobs] == [f"nightly-cpu.shard-{i}-of-2" for i in (1, 2)]
    assert [job["options"] for job in jobs] == [
        f"--device cpu --wheel cpu --shard {i}/2" for i in (1, 2)
    ]
    assert _run("matrix.py", "--cells", "--tag", "nightly", "--shards", "2").stdout.split() == [
        "nightly-cpu"
    ]
    assert child["report"]["script"][-1].endswith("--strict nightly-cpu")


def test_python_of_a_job_is_one_that_the_row_has_wheels_for() -> None:
    jobs = json.loads(_run("matrix.py", "--python", "3.14").stdout)["include"]

    assert {job["python"] for job in jobs if job["session"] == "tests-2.4"} == {"3.12"}
    assert {job["python"] for job in jobs if job["session"] == "tests-2.13"} == {"3.14"}


def test_only_jobs_on_the_cpu_that_install_a_torch_take_the_cpu_wheel() -> None:
    jobs = json.loads(
        _run("matrix.py", "--tag", "stable", "local", "--device", "cpu", "xpu").stdout
    )
    wheels = {(job["session"] == "tests-local", job["device"]) for job in jobs["include"]} - {
        (job["session"] == "tests-local", job["device"])
        for job in jobs["include"]
        if "--wheel cpu" not in job["options"]
    }

    assert wheels == {(False, "cpu")}


def test_every_job_has_a_time_limit() -> None:
    github = yaml.safe_load((CI / "github.yml").read_text())["jobs"].values()
    gitlab = [yaml.safe_load((CI / "gitlab.yml").read_text())["project"]]
    gitlab += yaml.safe_load(_run("matrix.py", "--gitlab").stdout).values()

    assert all("timeout-minutes" in job for job in github)
    assert all("timeout" in job for job in gitlab if isinstance(job, dict))
    assert "timeout(time: 3, unit: 'HOURS')" in _groovy()


def test_cells_of_one_torch_share_a_cache_of_wheels() -> None:
    words = ("--gitlab", "--tag", "nightly", "--shards", "2")
    child = yaml.safe_load(_run("matrix.py", *words).stdout)
    cell = yaml.safe_load((CI / "github.yml").read_text())["jobs"]["cell"]
    (cache,) = (s for s in cell["steps"] if s.get("uses", "").startswith("actions/cache@"))

    assert {job["cache"]["key"] for name, job in child.items() if name.startswith("nightly")} == {
        "tests-nightly-cpu"
    }
    assert all(f"matrix.{fact}" in cache["with"]["key"] for fact in ("session", "device", "python"))


def test_no_cell_is_an_error() -> None:
    done = _run("matrix.py", "--device", "hpu")

    assert done.returncode == 2
    assert "no job 2.13-hpu: hpu needs Habana's build of torch" in done.stderr


# -- the definitions -------------------------------------------------------------------------------


def _strings(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for value in node.values() for text in _strings(value)]
    if isinstance(node, list):
        return [text for value in node for text in _strings(value)]
    return [node] if isinstance(node, str) else []


def _sessions(definition: Any) -> set[str]:
    named = [re.findall(r"nox -s (\S+)", text) for text in _strings(definition)]
    return {name for names in named for name in names}


def _known() -> set[str]:
    command = [sys.executable, "-m", "nox", "-f", str(CI.parent / "noxfile.py"), "--list"]
    listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return set(re.findall(r"^[-*] (\S+)", listed, re.MULTILINE))


SCHEMAS = {
    "github": ("vendor.github-workflows", "github.yml"),
    "gitlab": ("vendor.gitlab-ci", "gitlab.yml"),
}


def _schema_complaints(schema: str, file: Path) -> str:
    # The schemas are GitHub's and GitLab's own, in the copies that the package brings.
    words = ["--builtin-schema", schema, "--data-transform", "gitlab-ci"]
    command = [sys.executable, "-m", "check_jsonschema", *words, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize(("schema", "name"), SCHEMAS.values(), ids=SCHEMAS)
def test_definition_keeps_to_its_schema(schema: str, name: str) -> None:
    assert _schema_complaints(schema, CI / name) == ""


def test_gitlab_child_keeps_to_its_schema(tmp_path: Path) -> None:
    child = tmp_path / "cells.yml"
    child.write_text(_run("matrix.py", "--gitlab").stdout)

    assert _schema_complaints("vendor.gitlab-ci", child) == ""


@pytest.mark.parametrize(("schema", "name"), SCHEMAS.values(), ids=SCHEMAS)
def test_schema_refuses_what_is_wrong(tmp_path: Path, schema: str, name: str) -> None:
    wrong = tmp_path / name
    wrong.write_text((CI / name).read_text() + "\nreport: {needs: 1, scripts: [a], steps: 7}\n")

    assert "Schema validation errors" in _schema_complaints(schema, wrong)


def test_github_names_sessions_that_there_are() -> None:
    jobs = yaml.safe_load((CI / "github.yml").read_text())["jobs"]

    assert _sessions(jobs) == {'"$SESSION"', "check-reports", "report"}
    assert (
        set(jobs["project"]["strategy"]["matrix"]["session"]) | {"check-reports", "report"}
        <= _known()
    )
    assert jobs["cell"]["strategy"]["matrix"] == "${{ fromJSON(needs.matrix.outputs.jobs) }}"
    assert set(jobs["gate"]["needs"]) == set(jobs) - {"gate"}


def test_github_job_may_only_read_and_keeps_the_reports_of_a_failure() -> None:
    text = (CI / "github.yml").read_text()
    workflow = yaml.safe_load(text)
    upload = workflow["jobs"]["cell"]["steps"][-1]

    assert workflow["permissions"] == {"contents": "read"}
    # The job that may write publishes results, and runs no code of anybody's package.
    assert {
        name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job
    } == {"checks": {"checks": "write"}}
    publish = workflow["jobs"]["checks"]["steps"]
    assert [step["uses"].partition("@")[0] for step in publish] == [
        "actions/download-artifact",
        "mikepenz/action-junit-report",
    ]
    # Each cell is a check of its own: cells in one file would be retries of one another.
    assert publish[1]["with"]["group_reports"] is False
    assert "check_retries" not in publish[1]["with"]
    assert upload["if"] == "always()"
    assert upload["with"]["path"].split() == ["reports/*.xml", "reports/*.shard-*.jsonl"]
    assert all(
        re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", use) for use in re.findall(r"uses: (\S+)", text)
    )


def test_github_report_is_made_of_all_cells_whatever_became_of_them() -> None:
    report = yaml.safe_load((CI / "github.yml").read_text())["jobs"]["report"]
    commands = [step["run"] for step in report["steps"] if "run" in step]

    assert report["if"] == "always()"
    assert "cell" in report["needs"]
    assert commands[1].endswith("--strict $CELLS")
    named = {"CELLS": "${{ needs.matrix.outputs.cells }}"}
    assert named in [step.get("env") for step in report["steps"]]
    for step in report["steps"][-2:]:
        assert step["if"] == "always()"
    assert commands[2] == 'cat report/summary.md >> "$GITHUB_STEP_SUMMARY"'


def test_gitlab_names_sessions_that_there_are() -> None:
    parent = yaml.safe_load((CI / "gitlab.yml").read_text())
    (sessions,) = parent["project"]["parallel"]["matrix"]

    assert _sessions(parent) == {"$SESSION"}
    assert set(sessions["SESSION"]) <= _known()


def test_gitlab_child_has_a_job_a_cell_and_the_report_of_all() -> None:
    child = yaml.safe_load(_run("matrix.py", "--gitlab").stdout)
    report = child.pop("report")
    stages = child.pop("stages")

    rows = [row for row in releases.ROWS if row is not releases.LOCAL]
    assert list(child) == [f"{row.name}-cpu" for row in rows]
    assert _sessions(child) == {row.session for row in rows} <= _known()
    for job in child.values():
        assert job["artifacts"]["when"] == "always"
        assert job["artifacts"]["reports"] == {"junit": "reports/*.xml"}
        assert job["stage"] == stages[0]
    assert report["when"] == "always"
    assert report["stage"] == stages[-1]
    assert report["script"][-1].endswith(f"--strict {' '.join(child)}")
    assert _sessions(report) <= _known()


def test_jenkins_is_given_a_line_a_cell() -> None:
    lines = _run("matrix.py", "--jenkins").stdout.splitlines()

    jobs = json.loads(_run("matrix.py").stdout)["include"]
    words = ("cell", "session", "device", "python", "options")
    assert [line.split(" ", 4) for line in lines] == [[job[word] for word in words] for job in jobs]


def _groovy() -> str:
    """The Jenkinsfile without its comments."""
    return re.sub(r"(^|\s)//.*", "", (CI / "Jenkinsfile").read_text())


def test_jenkins_names_sessions_and_plugins_that_there_are() -> None:
    commands = re.findall(r"""\bsh ?\(?(?:script: )?(["'])(.*?)\1""", _groovy())

    assert [text.replace(".tools/bin/", "") for _, text in commands] == [
        "python3 ci/matrix.py --jenkins --shards 1",
        "python${python} -m venv .tools && pip install 'nox[uv]'",
        "nox -s ${session} -- ${options}",
        "python3 -m venv .tools && pip install 'nox[uv]'",
        "nox -s report -- reports -o report --strict ${names}",
    ]
    for quote, text in commands:
        assert (quote == '"') == ("${" in text or "'" in text)


def test_jenkins_makes_its_report_last() -> None:
    assert re.findall(r"stage\('(\w+)'\)", _groovy()) == ["matrix", "cells", "report"]


JENKINS = [CI / "Jenkinsfile", CI / "vendor" / "Jenkinsfile"]


@pytest.mark.parametrize("file", JENKINS, ids=["project", "vendor"])
def test_pipeline_keeps_to_jenkins_sections(file: Path) -> None:
    assert jenkins.complaints(file.read_text()) == []


WRONG_PIPELINES = {
    "section": ("stages {", "stagez {", "pipeline has no stagez"),
    "no agent": ("  agent { label 'mine' }\n", "", "pipeline needs agent"),
    "agent's key": ("{ label 'mine' }", "{ lable 'mine' }", "an agent needs one of docker"),
    "agent's name": ("{ label 'mine' }", "some", "there is no agent some"),
    "condition": ("always {", "allways {", "post has no allways"),
    "no steps": ("steps {", "step {", "a stage needs one of matrix"),
    "option": ("timeout(", "timeouts(", "options has no timeouts"),
    "trigger": ("cron(", "kron(", "triggers has no kron"),
    "groovy": ("        sh ", "        def a = 1\n        sh ", "Groovy outside of script: def a"),
    "brace": ("}\n", "\n", "{ is not closed"),
    "bracket": ("archiveArtifacts ", "archiveArtifacts) ", ") closes nothing"),
    "empty": ("cron('H 2 * * *')", "", "triggers is empty"),
    "twice": ("  stages {", "  agent any\n  stages {", "pipeline has two agent"),
    "no pipeline": ("pipeline {", "pipelines {", "0 blocks pipeline"),
}


@pytest.mark.parametrize(("right", "wrong", "told"), WRONG_PIPELINES.values(), ids=WRONG_PIPELINES)
def test_wrong_pipeline_is_refused(right: str, wrong: str, told: str) -> None:
    text = (CI / "vendor" / "Jenkinsfile").read_text()
    assert right in text

    assert any(told in line for line in jenkins.complaints(text.replace(right, wrong, 1)))


def test_jenkins_goes_on_to_the_report_when_a_cell_failed() -> None:
    """What may fail in a cell stands in a block that colours it and lets the rest run."""
    cells = _groovy().partition("stage('cells')")[2].partition("stage('report')")[0]
    guarded = re.findall(r"catchError\(buildResult: 'FAILURE'.*?\n {16}\}", cells, re.DOTALL)

    assert ["nox" in guarded[0], "junit" in guarded[1]] == [True, True]
    assert "allowEmptyResults: false" in guarded[1]
    assert cells.index("stash name") > cells.index(guarded[1])


def test_kubernetes_job_starts_one_process_on_each_node() -> None:
    """The operator refuses a job without a container of this name, and tells torchrun the nodes."""
    job = yaml.safe_load((CI / "pytorchjob.yaml").read_text())
    specs = job["spec"]["pytorchReplicaSpecs"]
    (container,) = specs["Master"]["template"]["spec"]["containers"]

    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert job["spec"]["nprocPerNode"] == "1"
    assert specs["Master"]["replicas"] == 1
    assert specs["Worker"]["template"] == specs["Master"]["template"]
    assert container["name"] == "pytorch"
    assert container["command"][:4] == ["torchrun", "-m", "distparity", "run"]
    assert run.check(container["command"][4:]).device == ["cuda"]


# -- the check of reports --------------------------------------------------------------------------

FACTS = {
    "torch": "2.13.0+cpu",
    "torch_git": "cf30153c",
    "device": "cpu",
    "device_name": "a processor",
    "device_count": 1,
    "backend": "gloo",
    "backend_version": "torch 2.13.0+cpu",
    "world_sizes": [2, 4],
    "declared": 3,
    "python": "3.12.1",
    "platform": "Linux",
    "command": "pytest",
}
PASSED = Outcome(Status.PASSED)
FAILED = Outcome(Status.FAILED, "step 0, gradient of a.weight")
SKIPPED = Outcome(Status.NOT_SUPPORTED, "float64 on xpu: it has none")
LOST = Outcome(Status.NOT_AVAILABLE, "1 node is left", facts={"lost_nodes": "node2"})
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the report of cell 2.13-cpu, with the outcomes of cases s/0, s/1, ..."""

    def write(
        *outcomes: Outcome,
        cell: str = "2.13",
        on: str = "cpu",
        ended: str = "finished",
        **facts: Any,
    ) -> Path:
        cases = [f"s/{number}" for number in range(max(3, len(outcomes)))]
        path, xml = paths(tmp_path, cell, on)
        about = FACTS | {"device": on} | facts
        header = {"cell": {"torch": cell, "device": on}, "facts": about, "cases": cases}
        journal = Journal(path, xml, header)
        for case, outcome in zip(cases, outcomes, strict=False):
            journal.add(case, outcome)
        journal.end(ended)
        return junit_writer.write_from_journal(path)

    return write


def _check(folder: Path, *words: str) -> tuple[int, str]:
    done = _run("check_reports.py", str(folder), *words)
    return done.returncode, done.stdout + done.stderr


def test_report_that_is_as_it_should_be(write: Write) -> None:
    folder = write(PASSED, PASSED, SKIPPED).parent

    assert _check(folder, "2.13-cpu") == (0, "2.13-cpu: 3 cases, 1 skipped\n")


@pytest.mark.parametrize("device", ["cuda", "cuda-shared", "cuda-default", "cuda-shared-default"])
@pytest.mark.parametrize("cell", ["2.13", "my-build"])
def test_cell_is_named_by_its_torch_and_its_device(write: Write, cell: str, device: str) -> None:
    folder = write(PASSED, PASSED, PASSED, cell=cell, on=device).parent

    assert _check(folder, f"{cell}-{device}")[0] == 0


@pytest.mark.parametrize(
    ("outcomes", "facts", "complaint"),
    [
        ([PASSED, FAILED, PASSED], {}, "2.13-cpu: s/1: failed: step 0, gradient of a.weight"),
        ([PASSED, PASSED], {}, "2.13-cpu: s/2: missing: no result: finished"),
        ([PASSED, PASSED, LOST], {}, "2.13-cpu: s/2: missing: not available: 1 node is left"),
        ([SKIPPED] * 3, {}, "2.13-cpu: nothing ran: every case was skipped"),
        ([PASSED] * 4, {}, "2.13-cpu: 3 cases were declared, and 4 are there"),
        ([PASSED] * 3, {"torch": "2.1.3"}, "2.13-cpu: it is about torch 2.1.3"),
        ([PASSED] * 3, {"torch": "2.130.0"}, "2.13-cpu: it is about torch 2.130.0"),
        ([PASSED] * 3, {"device": "cuda"}, "2.13-cpu: device is 'cuda', not 'cpu'"),
        ([PASSED] * 3, {"backend": ""}, "2.13-cpu: it does not say its backend"),
        ([PASSED] * 3, {"ended": "interrupted"}, "2.13-cpu: ended is 'interrupted'"),
    ],
    ids=[
        "failed",
        "missing",
        "lost",
        "skipped",
        "declared",
        "torch",
        "no prefix",
        "device",
        "fact",
        "ended",
    ],
)
def test_report_that_is_not(
    write: Write, outcomes: list[Outcome], facts: dict[str, Any], complaint: str
) -> None:
    code, output = _check(write(*outcomes, **facts).parent, "2.13-cpu")

    assert code == 1
    assert output.startswith(complaint)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('failures="0"', 'failures="1"', "it counts 1 failures and has 0"),
        ('tests="3"', 'tests="4"', "it counts 4 tests and has 3"),
        ('name="2" time', 'name="1" time', "of its 3 cases 1 have another's id"),
        ('value="2.13-cpu"', 'value="2.12-cpu"', "cell is '2.12-cpu', not '2.13-cpu'"),
        ("torch 2.13 cpu", "torch cpu", "the suite's name is 'distparity torch cpu'"),
        ("</testsuites>", "", "is no JUnit XML"),
        ("<testsuite ", "<testsuite/><testsuite ", "has 2 suites, and a cell is one"),
    ],
    ids=["failures", "tests", "twice", "cell", "name", "cut off", "two suites"],
)
def test_report_that_was_tampered_with(write: Write, old: str, new: str, complaint: str) -> None:
    path = write(PASSED, PASSED, PASSED)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))

    code, output = _check(path.parent, "2.13-cpu")

    assert code == 1
    assert complaint in output


def test_report_that_is_not_there(write: Write) -> None:
    folder = write(PASSED, PASSED, PASSED).parent

    code, output = _check(folder, "2.13-cpu", "nightly-cpu")

    assert code == 1
    assert f"nightly-cpu: there is no {folder}/junit-nightly-cpu.xml" in output


def test_broken_cell_says_why(tmp_path: Path) -> None:
    junit_writer.write_broken_cell(tmp_path, "2.13", "cpu", "the index does not answer", "", {})

    assert _check(tmp_path, "2.13-cpu") == (1, "2.13-cpu: error: the index does not answer\n")


def test_known_failure_has_to_fail(write: Write) -> None:
    folder = write(PASSED, FAILED, PASSED).parent

    assert _check(folder, "2.13-cpu", "--known-failure", "2.13-cpu:s/1") == (
        0,
        "2.13-cpu: 3 cases, 0 skipped, 1 known to fail\n",
    )
    words = [f"--known-failure=2.13-cpu:s/{number}" for number in (0, 1, 7)]
    code, output = _check(folder, "2.13-cpu", *words)
    assert code == 1
    assert "2.13-cpu: s/0: is known to fail, and passed" in output
    assert "2.13-cpu: s/7: is known to fail, and is not there" in output
    assert _check(folder, "2.13-cpu", "--known-failure", "2.12-cpu:s/1")[0] == 2


def test_what_failed_as_expected_did_run(write: Write) -> None:
    expected, skipped = Outcome(Status.EXPECTED, "known"), Outcome(Status.NOT_RUN, "it hangs")
    folder = write(expected, expected, skipped).parent

    assert _check(folder, "2.13-cpu") == (0, "2.13-cpu: 3 cases, 1 skipped, 2 failed as expected\n")
    code, output = _check(write(Outcome(Status.FIXED, "fixed: remove"), skipped).parent, "2.13-cpu")
    assert code == 1
    assert "2.13-cpu: s/0: unexpectedly fixed: fixed: remove" in output


def test_test_ids_are_the_same_in_every_cell(write: Write) -> None:
    write(PASSED, PASSED, PASSED)
    folder = write(*[PASSED] * 4, cell="nightly", declared=4).parent

    assert _check(folder, "2.13-cpu", "nightly-cpu") == (
        1,
        "2.13-cpu: 3 cases, 0 skipped\nnightly-cpu: its test ids are not those of 2.13-cpu\n",
    )


# -- the strict switch -----------------------------------------------------------------------------


def _strict(folder: Path, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "distparity", "report", str(folder), "-o", f"{folder}/report"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("outcomes", "words", "complaint"),
    [
        ([PASSED, FAILED, SKIPPED], ["--strict", "2.13-cpu"], ""),
        ([PASSED, SKIPPED, SKIPPED], ["--strict"], ""),
        ([SKIPPED] * 3, [], ""),
        ([SKIPPED] * 3, ["--strict"], "2.13-cpu: nothing ran: 3 not supported"),
        (
            [PASSED, PASSED, LOST],
            ["--strict"],
            "2.13-cpu: 1 of 3 cases did not run: node2 was lost",
        ),
        (
            [PASSED] * 3,
            ["--strict", "2.13-cpu", "2.4-cpu"],
            "2.4-cpu: absent: no file has this cell",
        ),
    ],
    ids=["red is shown", "some ran", "lenient", "all skipped", "a lost node", "absent"],
)
def test_strict_report_is_red_where_a_cell_shows_nothing(
    write: Write, outcomes: list[Outcome], words: list[str], complaint: str
) -> None:
    folder = write(*outcomes).parent

    code, errors = _strict(folder, *words)

    assert code == bool(complaint)
    assert errors == (f"distparity: {complaint}\n" if complaint else "")
    assert (folder / "report/index.html").exists()


# -- what consumers make of it ---------------------------------------------------------------------


def test_cells_side_by_side_have_equal_ids_and_names_of_their_own(write: Write) -> None:
    """EnricoMi counts an id in two files as one test run twice; Azure takes a run's name of a suite."""
    found = [write(PASSED, FAILED, SKIPPED, cell=cell) for cell in ("2.12", "2.13")]
    suites = [ElementTree.parse(path).getroot().findall("testsuite") for path in found]

    ids = [[(c.get("classname"), c.get("name")) for c in s.iter("testcase")] for (s,) in suites]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3
    assert [path.name for path in found] == ["junit-2.12-cpu.xml", "junit-2.13-cpu.xml"]
    assert [s.get("name") for (s,) in suites] == [f"distparity torch 2.{n} cpu" for n in (12, 13)]


# -- the page of the releases ----------------------------------------------------------------------

DEFECT = {"reason": "the sum for the mean", "link": "https://example.org/1"}
OTHER = {"reason": f"{DEFECT['reason']}; adds it twice", "link": f"{DEFECT['link']} https://x.org"}


def _page(folder: Path, *reports: Path) -> str:
    done = _run("versions.py", *map(str, reports), "-o", str(folder / "versions.md"))
    assert (done.returncode, done.stderr) == (0, "")
    return (folder / "versions.md").read_text()


def test_page_counts_what_the_xml_of_each_release_has(tmp_path: Path) -> None:
    asked = {"status": "not supported", "message": "fully_shard on cpu: torch 2.4.1 says Error: no"}
    old = {
        "basic/ddp-ws2-float32": {"status": "passed", "ratio": "0.25"},
        "sum/shard-ws2-float32": {"status": "passed", "ratio": "1", "checks": "3"},
        "sum/uneven-ws2-float32": {"status": "expected failure", "message": "", **OTHER},
        "basic/fsdp2-ws2-float32": asked,
        "basic/fsdp2-ws4-float32": asked,
    }
    new = {
        "basic/ddp-ws2-float32": {"status": "failed", "message": "not | the same", "ratio": "7"},
        "sum/uneven-ws2-float32": {"status": "expected failure", "message": "", **DEFECT},
    }
    runs = [cells.write(tmp_path, name, "cpu", run) for name, run in (("2.10", new), ("2.4", old))]
    text = _page(tmp_path, *runs)

    found, _, undefined = text.partition("## What torch leaves undefined")
    assert "| scenario all_gather; strategy" in undefined
    rows = [line for line in found.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| 2.4 (cpu) | 5 | 2 | 0 | 1 | 2 | 0.250 (basic/ddp-ws2-float32) | 1.000 (sum/shard-ws2-float32) | 12 | 2026-11-20 |",
        "| 2.10 (cpu) | 2 | 0 | 1 | 1 | 0 | nothing passed | nothing passed | 12 | 2026-11-20 |",
        "| case | torch |  | ratio | message |",
        "| basic/ddp-ws2-float32 | 2.10 (cpu) | failed | 7 | not &#124; the same |",
        "| cases | 2.4 (cpu) | 2.10 (cpu) |",
        "| adds it twice (https://x.org) | 1 |  |",
        "| the sum for the mean (https://example.org/1) | 1 | 1 |",
        "| cases | 2.4 (cpu) | 2.10 (cpu) |",
        "| fully_shard on cpu | 2 |  |",
    ]


def test_page_is_not_made_of_two_runs_that_disagree(tmp_path: Path) -> None:
    results = {"basic/ddp-ws2-float32": cells.PASSED}
    one = cells.write(tmp_path / "one", "2.4", "cpu", results)
    other = cells.write(tmp_path / "other", "2.4", "cpu", results, torch_git="another")
    done = _run("versions.py", str(one), str(other), "-o", str(tmp_path / "versions.md"))

    assert done.returncode == 1
    assert "both claim the cell '2.4-cpu'" in done.stderr
    assert not (tmp_path / "versions.md").exists()


# -- a vendor's repository -------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted((CI / "vendor").iterdir()), ids=lambda path: path.name)
def test_files_for_vendors_call_what_there_is(file: Path) -> None:
    text = file.read_text()
    called = re.findall(r"distparity\"?,? \"?(doctor|run|report)\b([^#\n&]*)", text)
    known = {"doctor": arguments.flags(), "run": arguments.flags(), "report": ["--strict"]}

    assert called or "ENTRYPOINT" in text
    for command, words in called:
        assert set(re.findall(r"--[a-z-]+", words)) <= set(known[command]), (command, words)
    options = re.findall(r"\"(--[a-z-]+)\"", text)
    assert set(options) <= set(arguments.flags())
    assert "git clone" not in text


@pytest.mark.parametrize(("schema", "name"), SCHEMAS.values(), ids=SCHEMAS)
def test_jobs_for_vendors_keep_to_their_schemas(schema: str, name: str) -> None:
    assert _schema_complaints(schema, CI / "vendor" / name) == ""


VENDOR = CI.parent / "examples" / "vendor"


def test_the_example_of_a_vendors_repository_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_cells(VENDOR / "cells.toml")
    entries = expectations.load(
        [Path(file) for cell in found for file in cell.expectations]
    ).entries
    monkeypatch.syspath_prepend(str(VENDOR))
    job = (VENDOR / ".gitlab-ci.yml").read_text()
    kind = importlib.import_module("mine").Sim.kind

    assert {cell.device for cell in found} == {kind} == {entry.device[0] for entry in entries}
    assert _schema_complaints("vendor.gitlab-ci", VENDOR / ".gitlab-ci.yml") == ""
    # Every cell of the file must be in the report.
    assert re.findall(r"image-\S+", job) == [f"image-{cell.title}" for cell in found]


@pytest.mark.parametrize("file", ["github.yml", "gitlab.yml"])
def test_jobs_for_vendors_report_after_failures_too(file: str) -> None:
    text = (CI / "vendor" / file).read_text()
    found = yaml.safe_load(text)

    if file == "gitlab.yml":
        assert "distparity report" in found["distparity"]["after_script"][0]
        assert found["distparity"]["artifacts"]["when"] == "always"
        return
    # YAML reads the key `on` as true.
    assert found[True]["repository_dispatch"] == {"types": ["pull_request", "push"]}
    steps = found["jobs"]["cell"]["steps"]
    last = [step for step in steps if step.get("if") == "always()"]
    assert any("distparity report" in step.get("run", "") for step in last)
    torch = next(step for step in steps if step.get("with", {}).get("path") == "pytorch")
    assert "pull_request.head.sha" in torch["with"]["ref"]
