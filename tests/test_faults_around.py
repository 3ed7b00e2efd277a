"""Faults of what is around the ranks: pytest, the fork server, the disk, the number of processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from faulty_runs import Suite, cases, listed
from warm import PATIENCE

from distparity.core.outcome import Status

#: What is under way, and left behind, while the process that runs pytest is killed.
KILLED = ("ddp", "fault-endless-loop", "fault-leaves-children", "fsdp1")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_pytest_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    suite = Suite(tmp_path, listed(cases(*KILLED)))
    process = suite.start()
    wait_for(suite.has_result)
    # Otherwise nothing is found below, whatever is left: the controller, the fork server, and ranks.
    assert len(suite.processes()) > 3
    assert list((suite.folder / "tmp").iterdir())
    os.kill(process.pid, number)
    process.communicate(timeout=PATIENCE)
    suite.await_end()

    assert process.returncode != 0
    assert suite.leftovers() == []
    found = suite.xml()
    assert set(cases(*KILLED)) == set(found)
    assert {"passed", "missing"} == set(found.values())
    assert found == {case: outcome.status.value for case, outcome in suite.journal().items()}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def fill_disk(suite: Suite, temporary: str = "tmp") -> bool:
    """Run a suite whose report folder is on a disk of 16 KB; False where none can be mounted.

    ``temporary`` is its folder for temporary files, which may be on the same one.
    """
    reports = suite.folder / "reports"
    reports.mkdir(parents=True)
    suite.environment["TMPDIR"] = str(suite.folder / temporary)
    mount = f'mount -t tmpfs -o size=16k none {reports} && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if subprocess.run([*prefix, "true"], check=False).returncode:
        return False
    suite.run(prefix)
    return True


def fetch_saved(suite: Suite) -> None:
    """Bring the reports to their folder from where the run says that it put them."""
    found = re.search(
        r"could not be written to .* \(.*No space.*\); they are in (\S+)", suite.output
    )
    assert found, suite.output
    for path in Path(found[1]).iterdir():
        path.rename(suite.folder / "reports" / path.name)
    Path(found[1]).rmdir()


@pytest.mark.parametrize("temporary", ["tmp", "reports"])
def test_the_disk_is_full(tmp_path: Path, temporary: str) -> None:
    """The results are written elsewhere, the run says so, and it fails."""
    names = cases("ddp", "fsdp1", "fault-raise-one")
    suite = Suite(tmp_path, listed(names))
    if not fill_disk(suite, temporary):
        pytest.skip("a small file system cannot be mounted here: unshare and mount refuse")
    fetch_saved(suite)

    assert set(names) == set(suite.xml())
    assert suite.code == 1
    assert suite.leftovers() == []


#: What a rank does to the fork server -> the message.
TO_PARENT = {
    "kills-parent": "the fork server died (SIGKILL)",
    "kills-parent-leaving": "the fork server died (SIGKILL)",
    "stops-parent": "the fork server was stopped",
}


@pytest.mark.parametrize("fault", TO_PARENT)
def test_the_process_that_forks_ranks_is_killed_or_stopped(tmp_path: Path, fault: str) -> None:
    """It is the failure of one case; the cases that ran at the same time run again."""
    guilty = f"multiple_forward/fault-{fault}-ws2-float32"
    others = cases("ddp", "fsdp1", "fault-leaves-environment")
    suite = Suite(tmp_path, [*listed([*others, guilty]), "--worlds", "8"]).run()
    found = suite.journal()

    assert all(found[case].status is Status.PASSED for case in others)
    assert found[guilty].status is Status.CRASH
    assert TO_PARENT[fault] in found[guilty].message
    assert suite.leftovers() == []


def test_torch_cannot_be_imported_again(tmp_path: Path) -> None:
    """That is said once, and ends the run at once; what was done is not lost."""
    names = cases("ddp", "fsdp1", "fsdp2", "fault-kills-parent")
    environment = {"IMPORTED_ONCE": str(tmp_path / "once")}
    suite = Suite(tmp_path, [*listed(names), "--include", "once"], environment).run()
    found = suite.journal()

    why = "cannot be restarted: torch cannot be imported: RuntimeError: not a second time"
    assert set(names) == set(found)
    assert {o.status for o in found.values()} <= {Status.PASSED, Status.ERROR, Status.MISSING}
    assert [why in o.message for o in found.values() if o.status is Status.ERROR] == [True]
    assert suite.xml() == {case: outcome.status.value for case, outcome in found.items()}
    assert suite.code == 1
    assert suite.leftovers() == []


#: Which forks find no room -> what becomes of the case whose rank it was, when alone.
NO_ROOM = {"once": ("8", Status.PASSED), "whenever": ("8,9,10,11,12,13,14", Status.CRASH)}


@pytest.mark.parametrize(("forks", "status"), NO_ROOM.values(), ids=NO_ROOM)
def test_there_is_no_room_for_a_rank(tmp_path: Path, forks: str, status: Status) -> None:
    """As where somebody else has all the processes that are allowed."""
    names = cases("ddp", "fsdp1")
    arguments = [*listed(names), "--include", "no_room", "--worlds", "8"]
    suite = Suite(tmp_path, arguments, {"NO_ROOM": forks}).run()
    found = suite.journal()

    assert set(names) == set(found)
    wrong = {
        case: outcome for case, outcome in found.items() if outcome.status is not Status.PASSED
    }
    assert {outcome.status for outcome in wrong.values()} <= {status}
    assert all("could not be started" in outcome.message for outcome in wrong.values())
    assert suite.leftovers() == []


#: What fails once, with what it is called then.
FLAKY = {
    "flaky": "failed, then passed in a fresh world: rank 1 raised ValueError",
    "flaky-crash": "crash, then passed in a fresh world: rank 1 killed by SIGKILL",
}


@pytest.mark.parametrize(
    ("option", "code", "tag"), [([], 1, "failure"), (["--allow-flaky"], 0, "skipped")]
)
def test_a_case_that_fails_and_then_passes_is_flaky(
    tmp_path: Path, option: list[str], code: int, tag: str
) -> None:
    names = [cases(f"fault-{name}", sizes=[2])[0] for name in FLAKY]
    environment = {"INJECTED_MEMORY": str(tmp_path / "memory")}
    suite = Suite(tmp_path, [*listed(names), "--retry-failed", *option], environment).run()

    assert code == suite.code
    for case, message in zip(names, FLAKY.values(), strict=True):
        assert suite.journal()[case].status is Status.FLAKY
        assert message in suite.journal()[case].message
    root = ET.parse(tmp_path / "reports" / "junit-x-cpu.xml").getroot()
    results = root.findall(f".//testcase/{tag}")
    assert [result.attrib["message"].partition(":")[0] for result in results] == ["flaky"] * 2


def test_a_case_that_fails_twice_is_no_flaky_one(tmp_path: Path) -> None:
    (case,) = cases("fault-raise-one", sizes=[2])
    suite = Suite(tmp_path, ["--case", case, "--retry-failed", "--allow-flaky"]).run()

    outcome = suite.journal()[case]
    assert (suite.code, outcome.status) == (1, Status.FAILED)
    assert outcome.facts["again"].startswith("failed: rank 1 raised ValueError")
