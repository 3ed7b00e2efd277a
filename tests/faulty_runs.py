"""Runs of the suite whose processes and files can be found, for tests that disturb them."""

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from warm import MARK, PATIENCE, Started, Warm, can_run

from distparity.core.outcome import Outcome
from distparity.results import journal

HERE = Path(__file__).parent
#: A world with one other rank, and one with several.
SIZES = (2, 3)
#: Seconds that a case may take: on a busy machine, one that does nothing wrong takes several.
LIMIT = 10
#: Cases that must have the same result whatever happens beside them.
OTHERS = ("ddp", "fsdp1", "fsdp2")
#: In tests, the process that has imported torch already; None in benchmarks.
warm: Callable[[], Warm] | None = None


def heed_signals() -> None:
    """As in a shell's background job or under nohup, what is started would ignore these as well."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


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

    def words(self) -> list[str]:
        """The words after ``distparity``."""
        words = ["run", "--device", "cpu", "--cell", "x"]
        words += ["--world-size", ",".join(map(str, SIZES)), "--include", "injected"]
        return [*words, "--report-dir", str(self.folder / "reports"), *self.arguments]

    @property
    def place(self) -> Path:
        """Another name for its folder of temporary files, short enough for torch's sockets there."""
        return Path("/tmp", f"suite-{self.mark[:8]}")

    def start(self, prefix: list[str] | None = None) -> subprocess.Popen[str] | Started:
        (self.folder / "tmp").mkdir(parents=True)
        self.before = segments()
        self.place.symlink_to(self.folder / "tmp")
        # Where cores are allowed, none shall be left.
        cores = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (cores, cores))
        heed_signals()
        path = [str(HERE / "included"), *filter(None, [os.environ.get("PYTHONPATH")])]
        usual = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        variables = {**usual, "TMPDIR": str(self.place), MARK: self.mark, **self.environment}
        if warm is not None and prefix is None and can_run(variables, usual):
            return warm().start(self.words(), self.folder, variables)
        return subprocess.Popen(
            [*(prefix or []), sys.executable, "-m", "distparity", *self.words()],
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=variables,
        )

    def run(self, prefix: list[str] | None = None) -> Suite:
        process = self.start(prefix)
        self.output = process.communicate(timeout=PATIENCE)[0]
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
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
        return found

    def has_result(self) -> bool:
        """True once a case has a result; raises ``OSError`` before there is a side file."""
        return '"case"' in (self.folder / "reports" / "junit-x-cpu.jsonl").read_text()

    def await_end(self) -> None:
        deadline = time.monotonic() + PATIENCE / 10
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
            *(f"shared memory {path}" for path in self._lost()),
        ]

    def _lost(self) -> list[Path]:
        """Shared memory without a process. That of other tests' runs, at the same time, goes soon."""
        deadline = time.monotonic() + 15
        while True:
            found = [path for path in segments() - self.before if lost(path)]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.1)


def segments() -> set[Path]:
    return set(Path("/dev/shm").glob("torch_*"))


def lost(path: Path) -> bool:
    """Whether there is shared memory named after a process that has ended."""
    found = re.match(r"torch_(\d+)_", path.name)
    return found is not None and not Path(f"/proc/{found[1]}").exists()


def listed(arguments: list[str]) -> list[str]:
    return [word for case in arguments for word in ("--case", case)]


def assert_alike(undisturbed: Suite, other: Suite) -> None:
    """What ran in both had the same result, to the last digit."""
    there = other.journal()
    for case, outcome in undisturbed.journal().items():
        expected = (outcome.status, outcome.message, outcome.facts.get("ratio"))
        assert expected == (there[case].status, there[case].message, there[case].facts.get("ratio"))
