"""Two hosts on one machine: network namespaces with names and addresses of their own.

They are joined by a bridge. Needs root; :func:`why_not` says what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Cases in the order in which a run has them.
BEFORE = "basic/ddp-ws2-float32"
UNDER_WAY = "multiple_forward/fault-endless-loop-ws2-float32"
AFTER = "nested_units/fsdp2-ws2-float32"
#: Seconds for anything to happen.
LIMIT = 240.0


def why_not() -> str:
    """The fact by which this machine cannot have two hosts; "" if it can."""
    missing = [name for name in ("ip", "nsenter", "unshare", "openssl") if not shutil.which(name)]
    if missing:
        return f"not available: no {', '.join(missing)} on this machine"
    done = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "ip", "link", "add", "br0", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else f"not available: {done.stderr.strip()}"


class Hosts:
    """``one`` and ``two``, as ``host 1`` and ``host 2``."""

    def __init__(self) -> None:
        # Others on this machine may do the same: names have at most 15 letters.
        self.mark = f"dp{os.getpid() % 100_000}"
        self.net = f"10.{64 + os.getpid() % 128}.{os.getpid() // 128 % 250}"

    def name(self, host: int) -> str:
        return f"{self.mark}h{host}"

    def address(self, host: int) -> str:
        return f"{self.net}.{host}"

    def _ip(self, *words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check, capture_output=True)

    def make(self) -> None:
        bridge = f"{self.mark}b"
        self._ip("link", "add", bridge, "type", "bridge")
        self._ip("addr", "add", f"{self.net}.254/24", "dev", bridge)
        self._ip("link", "set", bridge, "up")
        for host in (1, 2):
            name = self.name(host)
            self._ip("netns", "add", name)
            self._ip(
                "link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name
            )
            self._ip("link", "set", f"{name}v", "master", bridge, "up")
            self._ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            for link in ("eth0", "lo"):
                self._ip("-n", name, "link", "set", link, "up")

    def remove(self) -> None:
        for host in (1, 2):
            self._ip("netns", "del", self.name(host), check=False)
            self._ip("link", "del", f"{self.name(host)}v", check=False)
        self._ip("link", "del", f"{self.mark}b", check=False)

    def cut(self, host: int) -> None:
        self._ip("link", "set", f"{self.name(host)}v", "down")

    def heal(self, host: int) -> None:
        self._ip("link", "set", f"{self.name(host)}v", "up")

    def block(self, host: int) -> None:
        """Have a host drop every connection that another one begins."""
        rule = ["-A", "INPUT", "-i", "eth0", "-p", "tcp", "--syn", "-j", "DROP"]
        net = f"--net=/run/netns/{self.name(host)}"
        subprocess.run(["nsenter", net, "iptables", *rule], check=True)

    def start(
        self, host: int, words: Sequence[str], log: Path, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host, in a session of its own; its output goes to ``log``."""
        inside = ["nsenter", f"--net=/run/netns/{self.name(host)}", "unshare", "--uts", "--mount"]
        # Each resolves both names, as torchrun wants.
        names = log.parent / "hosts"
        lines = [f"{self.address(one)} {self.name(one)}\n" for one in (1, 2)]
        names.write_text("".join(["127.0.0.1 localhost\n", *lines]))
        begin = 'hostname "$0"; mount --bind "$1" /etc/hosts; shift; exec "$@"'
        command = [*inside, "sh", "-c", begin, self.name(host), str(names), *words]
        path = [str(HERE / "included"), *filter(None, [os.environ.get("PYTHONPATH")])]
        with log.open("wb") as out:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=log.parent,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **(environ or {})},
            )

    def run(
        self,
        host: int,
        folder: Path,
        words: Sequence[str],
        launcher: Sequence[str] = (),
        verb: str = "run",
        **environ: str,
    ) -> subprocess.Popen[bytes]:
        """Start ``distparity run`` on a host as srun would, as one of two tasks.

        ``launcher`` are words of torchrun, if that is what the task is. ``verb`` is another subcommand.
        """
        step = {
            "SLURM_JOB_ID": self.mark,
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NUM_NODES": "2",
            "SLURM_PROCID": str(host - 1),
            "SLURM_LAUNCH_NODE_IPADDR": f"{self.net}.254",
        }
        if launcher:
            launcher = [
                "-m",
                "torch.distributed.run",
                *launcher,
                "--nnodes=2",
                "--nproc-per-node=1",
            ]
            launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint={self.address(1)}:29400"]
            launcher += [f"--local-addr={self.address(host)}"]
        command = [sys.executable, *launcher, "-m", "distparity", verb, "--device", "cpu"]
        command += ["--report-dir", str(folder / "reports"), *words]
        return self.start(host, command, folder / f"log{host}", {**step, **environ})


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    found = Hosts()
    try:
        found.make()
        yield found
    finally:
        found.remove()


@dataclass
class Trial:
    """One run over both hosts."""

    hosts: Hosts
    folder: Path
    under_way: str = UNDER_WAY
    words: list[str] = field(default_factory=list)
    #: For the second host, and for both.
    environ: dict[str, str] = field(default_factory=lambda: {"SUITE_MARK": "none"})
    both: dict[str, str] = field(default_factory=dict)
    launcher: list[str] = field(default_factory=list)
    began: float = 0.0
    #: What only the processes of the run have in their environment.
    marks: set[str] = field(default_factory=set)

    def options(self, timeout: float = 60.0) -> list[str]:
        """The options of the run."""
        found = ["--cell", "x", "--include", "injected", "--worlds", "1"]
        found += ["--case-timeout", str(timeout)]
        for case in (BEFORE, self.under_way, AFTER):
            found += ["--case", case]
        return found + self.words

    def start(self, timeout: float = 60.0, late: float = 0.0) -> None:
        """Start both, the second ``late`` seconds after the first."""
        common = self.options(timeout)
        self.one = self.hosts.run(1, self.folder, common, self.launcher, **self.both)
        time.sleep(late)
        both = {**self.both, **self.environ}
        self.two = self.hosts.run(2, self.folder, common, self.launcher, **both)

    def log(self, host: int) -> str:
        return (self.folder / f"log{host}").read_text(errors="replace")

    @property
    def results(self) -> dict[str, tuple[float, dict[str, Any]]]:
        found = {}
        for path in (self.folder / "reports").rglob("*.jsonl"):
            # The last line may be half written; an empty one is where another process went on.
            for line in filter(None, path.read_text().rpartition("\n")[0].splitlines()):
                entry = json.loads(line)
                if "case" in entry:
                    found[entry["case"]] = entry["at"], entry["outcome"]
        return found

    def until(self, what: Callable[[], object], limit: float = LIMIT) -> float:
        """Wait; returns how long it took, in seconds."""
        began = time.monotonic()
        while not what():
            if time.monotonic() - began > limit:
                raise SystemExit(f"not within {limit:g} s\n{self.log(1)}\n{self.log(2)}")
            time.sleep(0.02)
        return time.monotonic() - began

    def case_under_way(self) -> None:
        """Wait until the case before has ended, and its successor has begun."""
        self.until(lambda: BEFORE in self.results)
        time.sleep(2)
        self.began = time.time()

    def said(self, case: str = "") -> str:
        at, outcome = self.results[case or self.under_way]
        told = f"{outcome['status']}: {outcome['message']}".replace(self.hosts.mark, "")
        return f"{at - self.began:.1f} s | {told}"

    def left(self, host: int | None = None) -> list[int]:
        """The processes of this run, on one host or both."""
        marks = self.marks or {f"SLURM_JOB_ID={self.hosts.mark}"}
        if host is not None:
            marks = {*marks, f"SLURM_PROCID={host - 1}"}
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                words = set(path.read_text(errors="replace").split("\0"))
            except OSError:
                continue
            if marks <= words:
                found.append(int(path.parent.name))
        return found

    def relay(self) -> int:
        """The process of the node on the second host."""
        # The other processes there are the fork server and its ranks, which have sessions of their own.
        (pid,) = (pid for pid in self.left(2) if os.getsid(pid) == self.two.pid)
        return pid

    def resumed(self) -> str:
        """After which results the run went on, as its XML says."""
        (xml,) = (self.folder / "reports").glob("*.xml")
        found = re.search('distparity.resumed" value="([^"]+)"', xml.read_text())
        return found[1] if found else "from its beginning"

    def end(self) -> str:
        """Wait for the end; returns the exit codes, and what became of the case after."""
        self.until(lambda: self.one.poll() is not None)
        after = self.results.get(AFTER, (0, {"status": "no result"}))[1]["status"]
        time.sleep(1)
        left = len(self.left())
        return f"{after} | {self.one.returncode} | {left} processes"
