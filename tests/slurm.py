"""A Slurm of its own over two hosts: Debian's slurm-wlm, with munge."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import two_hosts
from two_hosts import Hosts

#: Of the machine's configuration, nothing is used.
CONF = """
ClusterName=two
SlurmctldHost=ctl({address})
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=sched_interval=2,sched_min_interval=0
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
MpiDefault=none
NodeName={one} NodeAddr={address1} CPUs=2 State=UNKNOWN
NodeName={two} NodeAddr={address2} CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """The fact by which this machine cannot have it; "" if it can."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not _found(name)]
    return two_hosts.why_not() or (
        f"not available: no {', '.join(missing)} on this machine" if missing else ""
    )


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


class Slurm:
    """Its commands, run on this machine, which is the login node."""

    def __init__(self, folder: Path) -> None:
        self.environ = {"SLURM_CONF": str(folder / "slurm.conf")}

    def say(
        self, *words: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> str:
        """Run a command of Slurm; returns what it prints. Raises ``CalledProcessError``."""
        env = {**os.environ, **(environ or {}), **self.environ}
        return subprocess.run(
            words, env=env, cwd=cwd, check=True, text=True, stdout=subprocess.PIPE
        ).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        words = self.say("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


@contextlib.contextmanager
def slurm(hosts: Hosts) -> Iterator[Slurm]:
    """Start it over both hosts; ends what it has started, and removes its files."""
    # A job's process has a socket in there, whose path may have 107 characters: no folder of a test.
    with tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp") as place:
        yield from _in(hosts, Path(place))


def _in(hosts: Hosts, folder: Path) -> Iterator[Slurm]:
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    names = {"one": hosts.name(1), "two": hosts.name(2)}
    where = {"address1": hosts.address(1), "address2": hosts.address(2)}
    made = Slurm(folder)
    (folder / "slurm.conf").write_text(
        CONF.format(address=f"{hosts.net}.254", port=port, folder=folder, **names, **where)
    )
    files = [f"--{what}={folder}/munge.{what}" for what in ("socket", "pid-file", "log-file")]
    files = [*files, f"--key-file={key}", f"--seed-file={folder}/munge.seed"]
    started = []

    def start(words: Sequence[str], name: str) -> None:
        with (folder / f"{name}.log").open("wb") as out:
            env = {**os.environ, **made.environ}
            started.append(subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env=env))

    try:
        start([str(_found("munged")), "--foreground", "--force", *files], "munged")
        controller = ["sh", "-c", 'hostname ctl; exec "$0" -D', str(_found("slurmctld"))]
        start(["unshare", "--uts", *controller], "slurmctld")
        for host in (1, 2):
            words = [str(_found("slurmd")), "-D", "-N", hosts.name(host)]
            log = folder / f"slurmd{host}.log"
            started.append(hosts.start(host, words, log, made.environ))
        until = time.monotonic() + 30
        while made.say("sinfo", "--noheader", "--format=%t %D") != "idle 2":
            if time.monotonic() > until:
                logs = [path.read_text()[-2000:] for path in folder.glob("*.log")]
                raise RuntimeError("Slurm does not start\n" + "\n".join(logs))
            time.sleep(0.2)
        yield made
    finally:
        for one in reversed(started):
            one.terminate()
        for one in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(3)
        # Steps have processes of their own, which wait for minutes for those that are gone.
        mark = f"SLURM_CONF={folder}/".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
        for one in started:
            one.kill()
            one.wait()
