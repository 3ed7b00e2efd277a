"""Faults injected for real into ranks, in the middle of a suite of other cases."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from distparity.core.outcome import Outcome, Status
from distparity.results import journal

HERE = Path(__file__).parent
SIZES = (2, 4)
LIMIT = 6
#: Cases that must have the same result whatever happens beside them.
OTHERS = ("ddp", "fsdp1", "fsdp2")

#: Where a rank waits that is right: without a flight recorder (torch before 2.8) less is known.
WAITS = r"in (all_reduce #\d+( of \[\d+\] float32)?|a collective of backward, #\d+)"
#: fault -> the outcome, and what its message says; CULPRIT is the rank that did it.
FAULTS = {
    "raise-one": (
        Status.FAILED,
        r"^CULPRIT raised ValueError: injected, .*at injected\.py:\d+.*; ranks? 0.* WAITS",
    ),
    "raise-all": (Status.FAILED, r"^rank \d raised ValueError: injected.*; the same on rank"),
    "raise-all-but-one": (
        Status.FAILED,
        r"^rank [1-3] raised ValueError: injected.*rank 0 .*WAITS",
    ),
    "raise-unspeakable": (
        Status.FAILED,
        r"^CULPRIT raised Mute: \(its text is not available: RuntimeError\)",
    ),
    "exit-3": (Status.CRASH, r"^CULPRIT exited with code 3; "),
    "sys-exit-0": (Status.FAILED, r"^CULPRIT raised SystemExit: 0, "),
    "sigkill": (Status.CRASH, r"^CULPRIT killed by SIGKILL; "),
    "sigsegv": (
        Status.CRASH,
        r"^CULPRIT killed by SIGSEGV, .* in string_at; ",
    ),
    "sigsegv-and-stays": (
        Status.CRASH,
        r"^CULPRIT killed by SIGSEGV, .* in string_at; ",
    ),
    "sigstop": (
        Status.TIMEOUT,
        r"hang: CULPRIT stopped, at injected\.py:\d+ in misbehave; ranks? 0.* WAITS",
    ),
    "endless-loop": (
        Status.TIMEOUT,
        r"hang: CULPRIT in no collective, .*injected\.py:\d+ in misbehave; ranks? 0",
    ),
    "native-with-gil": (
        Status.TIMEOUT,
        r"hang: CULPRIT in native code that holds the GIL, process \w+, at injected\.py",
    ),
    "skip-collective": (
        Status.TIMEOUT,
        r"out of step: ranks? 0.* in all_reduce #9 of \[8\] float32; CULPRIT answered after 8 collectives",
    ),
    "other-collective": (
        Status.TIMEOUT,
        r"out of step: ranks? 0.* in all_reduce #9 of \[8\] float32; CULPRIT in broadcast #9 of \[8\] float32",
    ),
    "other-shape": (Status.CRASH, r"op\.preamble\.length.*out of step: "),
    "memory-limit": (
        Status.FAILED,
        r"^CULPRIT raised RuntimeError: .*can't allocate memory.*injected\.py",
    ),
    "memory-killer": (Status.CRASH, r"^CULPRIT killed by SIGKILL"),
    "sigkill-shared-memory": (Status.CRASH, r"^CULPRIT killed by SIGKILL"),
    "sigusr1": (Status.PASSED, "^ratio"),
    "sigusr1-endless-loop": (
        Status.TIMEOUT,
        r"hang: CULPRIT in no collective, .*injected\.py:\d+ in spin; ranks? 0",
    ),
    "deep-stack": (
        Status.TIMEOUT,
        r"hang: CULPRIT .*, at injected\.py:\d+ in misbehave; ranks? 0",
    ),
    "output-is-a-pipe": (
        Status.TIMEOUT,
        r"hang: CULPRIT .*injected\.py:\d+ in misbehave; ranks? 0",
    ),
    "output-is-a-link": (
        Status.TIMEOUT,
        r"hang: CULPRIT .*injected\.py:\d+ in misbehave; ranks? 0",
    ),
    "port-taken": (Status.FAILED, r"^CULPRIT raised (DistNetwork|Runtime)Error: .*EADDRINUSE"),
    "loud": (Status.PASSED, "^ratio"),
    "loud-raise": (Status.FAILED, r"raised ValueError: injected"),
}
#: Where one rank goes astray -> what the others wait in meanwhile. gloo itself makes a
#: reduce-scatter of all-reduces, and its recorder calls it so.
ASTRAY = {
    "forward-ddp": "broadcast",
    "backward-ddp": "all_reduce",
    "read-ddp": "all_reduce",
    "forward-fsdp1": "all_gather",
    "backward-fsdp1": "(all_reduce|reduce_scatter)",
    "read-fsdp1": "all_gather",
    "forward-fsdp2": "all_gather",
    "backward-fsdp2": "all_gather",
    "read-fsdp2": "all_gather",
    "read-asynchronous": "all_reduce",
    "read-functional": "all_reduce",
    "read-coalesced-sum": "all_reduce",
    "read-coalesced-gather": "all_gather",
    "read-coalesced-scatter": "(all_reduce|reduce_scatter)",
    "read-message": "send",
    "read-in-order": "all_reduce",
    "read-future": "all_reduce",
    "read-other-thread": "all_reduce",
    "read-other-group": r"all_gather\w* #2 of \[[\d, ]+\] float32 in the group .*",
}
#: Who keeps the record of collectives -> the size of torch's flight recorder. With none, as with
#: gloo before 2.8 and a vendor's backend, it is ours.
RECORDS = {"torch": "64", "ours": "0"}
#: Functions that native stacks name -> the faults, and which rank is there: it did it, or it waits.
#: Where it crashed, where a library holds the interpreter, where C++ waits for the other ranks.
NATIVE = {
    "ffi_call": (["sigsegv"], "culprit"),
    "nanosleep": (["native-with-gil"], "culprit"),
    "c10d::Reducer::finalize_backward": (["native-with-gil", "endless-loop"], "waits"),
    "c10d::Work::wait": (["skip-collective"], "waits"),
}
#: What is left behind -> how the case that left it is marked.
LEFT = {
    "stdout-closed": "standard streams",
    "children": "child processes",
    "environment": r"environment \(INJECTED_LEFT_BEHIND\)$",
    "directory": "working directory",
    "dtype": "default dtype",
    "device": "default device",
    "generators": "^$",
    "threads": r"thread count, threads \(left\)",
    "modes": "gradient mode, deterministic algorithms",
    "autograd": "autograd settings",
    "hooks": "hooks of all modules or optimizers",
    "denormals": "flushing of denormals",
    "limits": "umask, signal handlers, resource limits",
}

#: What is under way, and left behind, while the process that runs pytest is killed.
KILLED = ("ddp", "fault-endless-loop", "fault-leaves-children", "fsdp1")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def cases(*strategies: str, sizes: Sequence[int] = SIZES) -> list[str]:
    return [f"multiple_forward/{name}-ws{size}-float32" for name in strategies for size in sizes]


@dataclass
class Suite:
    """A run of ``distparity run`` in a place of its own, whose processes can be found."""

    folder: Path
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    code: int = 0
    output: str = ""
    #: Shared memory that others had left before.
    before: set[Path] = field(default_factory=set)

    def command(self) -> list[str]:
        words = [sys.executable, "-m", "distparity", "run", "--device", "cpu", "--cell", "x"]
        words += ["--world-size", ",".join(map(str, SIZES)), "--include", "injected"]
        return [*words, "--report-dir", str(self.folder / "reports"), *self.arguments]

    @property
    def place(self) -> Path:
        """Another name for its folder of temporary files, short enough for torch's sockets there."""
        return Path("/tmp", f"suite-{self.mark[:8]}")

    def start(self, prefix: list[str] | None = None) -> subprocess.Popen[str]:
        (self.folder / "tmp").mkdir(parents=True)
        self.before = segments()
        self.place.symlink_to(self.folder / "tmp")
        # Where cores are allowed, none shall be left.
        cores = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (cores, cores))
        for number in SIGNALS[1:]:
            if signal.getsignal(number) is signal.SIG_IGN:
                # As in a shell's background job, or under nohup: it would be ignored there too.
                signal.signal(number, signal.SIG_DFL)
        path = [str(HERE / "included"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [*(prefix or []), *self.command()],
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path),
                "TMPDIR": str(self.place),
                "SUITE_MARK": self.mark,
                **self.environment,
            },
        )

    def run(self, prefix: list[str] | None = None) -> Suite:
        process = self.start(prefix)
        self.output = process.communicate(timeout=300)[0]
        self.code = process.returncode
        self.place.unlink()
        return self

    def journal(self) -> dict[str, Outcome]:
        return journal.read(self.folder / "reports" / "junit-x-cpu.jsonl").outcomes

    def xml(self) -> dict[str, str]:
        """Each case's status in the XML, by its id; the totals must be those of the cases."""
        suite = ET.parse(self.folder / "reports" / "junit-x-cpu.xml").getroot()[0]
        found = {}
        for case in suite.iter("testcase"):
            (status,) = case.findall("properties/property[@name='status']")
            scenario = case.attrib["classname"].removeprefix("distparity.")
            found[f"{scenario}/{case.attrib['name']}"] = status.attrib["value"]
        assert int(suite.attrib["tests"]) == len(found)
        return found

    def processes(self) -> list[int]:
        """Every process that came from this run and is still there."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"SUITE_MARK={self.mark}".encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
        return found

    def has_result(self) -> bool:
        """True once a case has a result; raises ``OSError`` before there is a side file."""
        return '"case"' in (self.folder / "reports" / "junit-x-cpu.jsonl").read_text()

    def await_end(self) -> None:
        deadline = time.monotonic() + 30
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.place.unlink()

    def leftovers(self) -> list[str]:
        """Processes, sockets, temporary files and shared memory that should be gone."""
        sockets = Path("/proc/net/unix").read_text().splitlines()
        return [
            *(f"process {pid}" for pid in self.processes()),
            # All others are gone with the processes that had them.
            *(f"socket {line.split()[-1]}" for line in sockets if str(self.place) in line),
            *(f"file {path}" for path in (self.folder / "tmp").rglob("*") if not path.is_dir()),
            *(f"core {path}" for path in self.folder.glob("core*")),
            *(f"folder {path}" for path in (self.folder / "tmp").iterdir() if path.is_dir()),
            *(f"shared memory {path}" for path in Path("/dev/shm").glob(f"*{self.mark}*")),
            *(f"shared memory {path}" for path in segments() - self.before if lost(path)),
        ]


def segments() -> set[Path]:
    return set(Path("/dev/shm").glob("torch_*"))


def lost(path: Path) -> bool:
    """Whether there is shared memory named after a process that has ended."""
    found = re.match(r"torch_(\d+)_", path.name)
    return found is not None and not Path(f"/proc/{found[1]}").exists()


def listed(arguments: list[str]) -> list[str]:
    return [word for case in arguments for word in ("--case", case)]


def remove_groups() -> None:
    """Remove the memory cgroups that a fault made."""
    for group in Path("/sys/fs/cgroup/memory").glob("injected-*"):
        group.rmdir()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(tmp_path_factory.mktemp("undisturbed"), listed(cases(*OTHERS))).run()


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    arguments = listed(cases(*OTHERS, *(f"fault-{name}" for name in FAULTS)))
    arguments += ["--case-timeout", str(LIMIT), "--worlds", "16"]
    folder = tmp_path_factory.mktemp("disturbed")
    yield Suite(folder, arguments, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}).run()
    remove_groups()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """A few faults with little beside them: native stacks are left out where they take too long."""
    names = sorted({f"fault-{name}" for faults, _ in NATIVE.values() for name in faults})
    arguments = listed(cases(*names))
    arguments += ["--case-timeout", str(LIMIT), "--worlds", "4"]
    return Suite(tmp_path_factory.mktemp("calm"), arguments).run()


@pytest.fixture(scope="module", params=RECORDS)
def astray(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    environment = {"TORCH_FR_BUFFER_SIZE": RECORDS[request.param]}
    arguments = listed(cases(*OTHERS, *(f"astray-{name}" for name in ASTRAY)))
    arguments += ["--include", "astray", "--case-timeout", str(LIMIT), "--worlds", "16"]
    return Suite(tmp_path_factory.mktemp("astray"), arguments, environment).run()


@pytest.fixture(scope="module")
def untidy(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Cases that leave something behind, each with one after it that looks for that.

    One world at a time, so that the second would come into the first one's.
    """
    leaves = [f"fault-leaves-{name}" for name in LEFT]
    arguments = listed(cases(*leaves, *(f"{name}-check" for name in leaves)))
    return Suite(tmp_path_factory.mktemp("untidy"), [*arguments, "--worlds", "2"]).run()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_for_what_it_is(disturbed: Suite, fault: str, size: int) -> None:
    status, message = FAULTS[fault]
    message = message.replace("CULPRIT", f"rank {size - 1}").replace("WAITS", WAITS)
    outcome = disturbed.journal()[f"multiple_forward/fault-{fault}-ws{size}-float32"]

    assert status is outcome.status
    assert re.search(message, outcome.message)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fault", [name for name, (status, _) in FAULTS.items() if status.bad])
def test_the_detail_has_every_rank(disturbed: Suite, fault: str, size: int) -> None:
    """Each rank is there, with a stack where its process could still give one."""
    detail = disturbed.journal()[f"multiple_forward/fault-{fault}-ws{size}-float32"].detail
    parts = re.split(r"^rank \d+ \(pid \d+\): ", detail, flags=re.MULTILINE)[1:]

    assert size == len(parts)
    for part in parts:
        account = part.partition("\n")[0]
        silent = re.search("^answered|^exited|^killed by SIGKILL", account)
        assert silent or "in gradients" in part or "train" in part, account


@pytest.mark.parametrize("function", NATIVE)
def test_the_detail_has_native_stacks(calm: Suite, function: str) -> None:
    """Of some such case at least: on a machine that is busy they may take too long, and are left out."""
    faults, who = NATIVE[function]
    told = []
    for case, size in ((fault, size) for fault in faults for size in SIZES):
        detail = calm.journal()[f"multiple_forward/fault-{case}-ws{size}-float32"].detail
        rank = size - 1 if who == "culprit" else 0
        told += re.findall(rf"-- native stacks of rank {rank}\n((?:  .*\n)+)", f"{detail}\n")

    assert any(function in stacks for stacks in told), told


def test_the_detail_has_the_last_words_of_a_rank(disturbed: Suite) -> None:
    detail = disturbed.journal()["multiple_forward/fault-raise-one-ws2-float32"].detail

    assert "-- output of rank 1\n  the last words of a rank" in detail


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("where", ASTRAY)
def test_ranks_out_of_step_are_told_from_a_hang(astray: Suite, where: str, size: int) -> None:
    """Ranks are compared by their collectives, whether Python, autograd or C++ began them."""
    outcome = astray.journal()[f"multiple_forward/astray-{where}-ws{size}-float32"]
    if outcome.status is Status.NOT_SUPPORTED:
        pytest.skip(outcome.message)

    told = rf"out of step: ranks? 0.* in {ASTRAY[where]}\w*( #\d+)?.*; rank {size - 1} in recv #\d+"

    assert outcome.status is Status.TIMEOUT
    assert re.search(told, outcome.message)


def test_who_goes_astray_goes_alone(undisturbed: Suite, astray: Suite) -> None:
    assert_alike(undisturbed, astray)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("left", LEFT)
def test_what_a_case_leaves_behind_does_not_reach_the_next(
    untidy: Suite, left: str, size: int
) -> None:
    found = untidy.journal()
    leaver = found[f"multiple_forward/fault-leaves-{left}-ws{size}-float32"]
    check = found[f"multiple_forward/fault-leaves-{left}-check-ws{size}-float32"]

    assert (leaver.status, check.status) == (Status.PASSED, Status.PASSED), check.message
    assert re.search(LEFT[left], leaver.facts.get("left_behind", ""))


def test_every_other_case_has_the_same_result(undisturbed: Suite, disturbed: Suite) -> None:
    assert_alike(undisturbed, disturbed)


def assert_alike(undisturbed: Suite, other: Suite) -> None:
    """What ran in both had the same result, to the last digit."""
    there = other.journal()
    for case, outcome in undisturbed.journal().items():
        expected = (outcome.status, outcome.message, outcome.facts.get("ratio"))
        assert expected == (there[case].status, there[case].message, there[case].facts.get("ratio"))


def test_the_xml_is_complete(disturbed: Suite) -> None:
    assert {case: o.status.value for case, o in disturbed.journal().items()} == disturbed.xml()
    assert disturbed.code == 1


@pytest.mark.parametrize("suite", ["undisturbed", "disturbed", "untidy"])
def test_nothing_is_left(request: pytest.FixtureRequest, suite: str) -> None:
    assert request.getfixturevalue(suite).leftovers() == []


def test_who_goes_astray_leaves_nothing(astray: Suite) -> None:
    assert astray.leftovers() == []


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_pytest_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    suite = Suite(tmp_path, listed(cases(*KILLED)))
    process = suite.start()
    wait_for(suite.has_result)
    os.kill(process.pid, number)
    process.communicate(timeout=60)
    suite.await_end()

    assert suite.leftovers() == []
    found = suite.xml()
    assert set(cases(*KILLED)) == set(found)
    assert {"passed", "missing"} == set(found.values())
    assert found == {case: outcome.status.value for case, outcome in suite.journal().items()}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
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
