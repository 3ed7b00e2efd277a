"""What becomes of a run over two nodes when one of them, or what joins them, fails.

Makes two hosts on this machine (network namespaces; needs root), starts ``distparity run`` on both as
srun would, and lets one thing go wrong while a case is under way. The row "another torch" needs
$OTHER_PYTHON, which has one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HEADINGS = ("what fails", "known after", "what is said", "the next case", "exit code", "left")
TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import slurm  # noqa: E402
import two_hosts  # noqa: E402
from _measure import Table, arguments, publish  # noqa: E402
from two_hosts import BEFORE, UNDER_WAY, Trial  # noqa: E402


def cut(trial: Trial) -> Iterator[str]:
    trial.start()
    trial.case_under_way()
    trial.hosts.cut(2)
    trial.until(lambda: UNDER_WAY in trial.results)
    yield trial.said()
    trial.until(lambda: not trial.left(2), 10)
    yield trial.end()
    trial.hosts.heal(2)


def killed(trial: Trial) -> Iterator[str]:
    trial.start()
    trial.case_under_way()
    os.kill(trial.relay(), signal.SIGKILL)
    trial.until(lambda: UNDER_WAY in trial.results)
    yield trial.said()
    yield trial.end()


def stopped(trial: Trial) -> Iterator[str]:
    trial.start()
    trial.case_under_way()
    pid = trial.relay()
    os.kill(pid, signal.SIGSTOP)
    trial.until(lambda: UNDER_WAY in trial.results)
    yield trial.said()
    trial.until(lambda: trial.one.poll() is not None)
    os.kill(pid, signal.SIGCONT)
    trial.until(lambda: not trial.left(2), 10)
    yield trial.end()


def fork_server_killed(trial: Trial) -> Iterator[str]:
    trial.start()
    trial.case_under_way()
    relay = trial.relay()
    children = Path(f"/proc/{relay}/task/{relay}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    trial.until(lambda: UNDER_WAY in trial.results)
    yield trial.said()
    yield trial.end()


def _controller(trial: Trial, number: int) -> Iterator[str]:
    trial.start()
    trial.case_under_way()
    pid = next(pid for pid in trial.left(1) if os.getsid(pid) == trial.one.pid)
    os.kill(pid, number)
    took = trial.until(lambda: not trial.left(2), 15)
    last = trial.log(2).strip().splitlines()[-1].replace(trial.hosts.mark, "")
    yield f"{took:.1f} s | {last}"
    os.kill(pid, signal.SIGKILL)
    trial.one.wait()
    trial.until(lambda: not trial.left(1), 10)
    yield f"- | {trial.one.returncode} | {len(trial.left())} processes"


def controller_killed(trial: Trial) -> Iterator[str]:
    yield from _controller(trial, signal.SIGKILL)


def controller_stopped(trial: Trial) -> Iterator[str]:
    yield from _controller(trial, signal.SIGSTOP)


def rank_killed(trial: Trial) -> Iterator[str]:
    trial.under_way = "multiple_forward/fault-sigkill-ws2-float32"
    trial.start()
    trial.until(lambda: BEFORE in trial.results)
    trial.began = trial.results[BEFORE][0]
    trial.until(lambda: trial.under_way in trial.results)
    yield trial.said()
    yield trial.end()


def rank_hangs(trial: Trial) -> Iterator[str]:
    trial.start(timeout=6)
    trial.until(lambda: BEFORE in trial.results)
    trial.began = trial.results[BEFORE][0]
    trial.until(lambda: UNDER_WAY in trial.results)
    yield trial.said()
    yield trial.end()


def disk_full(trial: Trial) -> Iterator[str]:
    small = trial.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)
    try:
        trial.environ["TMPDIR"] = str(small)
        trial.under_way = "multiple_forward/ddp-ws2-float32"
        trial.start()
        trial.until(lambda: (small / "filled").exists() or list(small.glob("distparity-*/world*")))
        with contextlib.suppress(OSError), (small / "filled").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        trial.began = time.time()
        trial.until(lambda: trial.one.poll() is not None)
        bad = [name for name, (_, one) in trial.results.items() if one["status"] != "passed"]
        yield trial.said(bad[0] if bad else BEFORE)
        yield trial.end()
    finally:
        subprocess.run(["umount", "-l", small], check=False)


def another_torch(trial: Trial) -> Iterator[str]:
    """$OTHER_PYTHON has another torch."""
    theirs, ours = os.environ["OTHER_PYTHON"], sys.executable
    trial.began = time.time()
    trial.one = trial.hosts.run(1, trial.folder, ["--case", BEFORE])
    sys.executable = theirs
    trial.two = trial.hosts.run(2, trial.folder, ["--case", BEFORE])
    sys.executable = ours
    trial.until(lambda: None not in (trial.one.poll(), trial.two.poll()))
    last = next(line for line in trial.log(1).splitlines() if "has torch" in line)
    yield f"{time.time() - trial.began:.1f} s after the start | {last.replace(trial.hosts.mark, '')}"
    yield f"not run | {trial.one.returncode} | {len(trial.left())} processes"


def stranger(trial: Trial) -> Iterator[str]:
    """Rubbish, a connection that says nothing, and a wrong token, while a run goes on."""
    trial.start(timeout=6)
    (path,) = _once(lambda: list((trial.folder / "reports").glob(".distparity-nodes-*")))
    port = json.loads(path.read_text())["port"]
    token = trial.folder / "token"
    token.write_text("x" * 32)
    token.chmod(0o600)
    where = f"{trial.hosts.address(1)}:{port}"
    rubbish = f"""
import socket
for words in (b"GET / HTTP/1.1\\r\\n\\r\\n", b"\\0" * 64):
    sock = socket.create_connection(("{trial.hosts.address(1)}", {port}))
    sock.sendall(words)
    try: sock.recv(100)
    except OSError: pass
"""
    trial.began = time.time()
    trial.hosts.start(2, [sys.executable, "-c", rubbish], trial.folder / "rubbish").wait()
    join = [sys.executable, "-m", "distparity", "join", where, "--token-file", str(token)]
    code = trial.hosts.start(2, join, trial.folder / "join").wait()
    said = (trial.folder / "join").read_text().strip().splitlines()[-1]
    end = trial.end()
    away = next(line for line in trial.log(1).splitlines() if "turned away" in line)
    yield f"at once | {away}; `distparity join` ends with {code}: {said}"
    yield end


def blocked(trial: Trial) -> Iterator[str]:
    """The node answers no connection that another one begins."""
    trial.hosts.block(2)
    began = time.time()
    trial.one = trial.hosts.run(1, trial.folder, [], verb="doctor")
    trial.two = trial.hosts.run(2, trial.folder, [], verb="doctor")
    trial.until(lambda: "FAILED" in trial.log(1))
    took = time.time() - began
    said = next(line for line in trial.log(1).splitlines() if "FAILED" in line)
    yield f"{took:.1f} s after the start | `distparity doctor`: {said.replace(trial.hosts.mark, '')}"
    trial.until(lambda: None not in (trial.one.poll(), trial.two.poll()))
    # As everywhere: what ends with them has a moment.
    time.sleep(1)
    yield f"not run | {trial.one.returncode} | {len(trial.left())} processes"


def late(trial: Trial) -> Iterator[str]:
    trial.under_way = "multiple_forward/ddp-ws2-float32"
    trial.began = time.time()
    trial.start(late=10)
    trial.until(lambda: BEFORE in trial.results)
    yield f"{trial.said(BEFORE)} on {trial.results[BEFORE][1]['facts']['nodes']}".replace(
        trial.hosts.mark, ""
    )
    yield trial.end()


def requeued(trial: Trial) -> Iterator[str]:
    """``scontrol requeue`` for a job of a real Slurm."""
    with slurm.slurm(trial.hosts) as cluster:
        words = ["--device", "cpu", "--report-dir", "reports", *trial.options(timeout=8)]
        # As it would be after "activate".
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environ = {"PATH": path, "PYTHONPATH": str(TESTS / "included")}
        log = ["--open-mode=append", f"--output={trial.folder / 'log1'}"]
        script = str(TESTS.parent / "ci" / "slurm.sbatch")
        job = cluster.say(
            *("sbatch", "--parsable", *log, script, *words), cwd=trial.folder, environ=environ
        )
        trial.marks = {f"SLURM_JOB_ID={job}", *(f"{k}={v}" for k, v in cluster.environ.items())}
        (trial.folder / "log2").touch()
        trial.case_under_way()
        cluster.say("scontrol", "requeue", job)
        trial.until(lambda: cluster.job(job)["JobState"] == "PENDING")
        # By itself, Slurm waits two minutes.
        cluster.say("scontrol", "update", f"JobId={job}", "StartTime=now")
        trial.until(lambda: UNDER_WAY in trial.results)
        took = trial.results[UNDER_WAY][0] - trial.began
        trial.until(
            lambda: cluster.job(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING")
        )
        after = trial.results[two_hosts.AFTER][1]["status"]
        code = cluster.job(job)["ExitCode"].partition(":")[0]
        yield f"{took:.1f} s | the run goes on {trial.resumed()}"
        yield f"{after} | {code} | {len(trial.left())} processes"


def restarted(trial: Trial) -> Iterator[str]:
    """torchrun starts all its processes again after the node's has died."""
    trial.words.append("--resume")
    trial.launcher = ["--max-restarts=2"]
    trial.start(timeout=8)
    trial.case_under_way()
    agent = trial.two.pid
    (worker,) = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    trial.until(lambda: UNDER_WAY in trial.results)
    took = trial.results[UNDER_WAY][0] - trial.began
    end = trial.end()
    yield f"{took:.1f} s | the run goes on {trial.resumed()}"
    yield end


def _once(find: Callable[[], list[Path]]) -> list[Path]:
    while not (found := find()):
        time.sleep(0.05)
    return found


FAULTS: dict[str, tuple[str, Callable[[Trial], Iterator[str]]]] = {
    "cut": ("the node's link is cut", cut),
    "killed": ("the node's process is killed", killed),
    "stopped": ("the node's process is stopped", stopped),
    "fork-server-killed": ("the node's fork server is killed", fork_server_killed),
    "controller-killed": ("the controller is killed", controller_killed),
    "controller-stopped": ("the controller is stopped", controller_stopped),
    "rank-killed": ("a rank on the node is killed", rank_killed),
    "rank-hangs": ("a rank on the node hangs (time limit 6 s)", rank_hangs),
    "disk-full": ("the node's disk is full", disk_full),
    "another-torch": ("the node has another torch", another_torch),
    "stranger": ("strangers, and a node with a wrong token", stranger),
    "blocked": ("the node drops connections that others begin", blocked),
    "late": ("the node comes 10 s late", late),
    "requeued": (
        "`scontrol requeue` ends the job and queues it again (`--resume`)",
        requeued,
    ),
    "restarted": ("the node's process dies; torchrun restarts all (`--resume`)", restarted),
}


def _merged(rows: list[list[str]], page: str) -> list[list[str]]:
    """The rows, and those that the page has of other faults, in the order of the faults."""
    there = page.partition("<!-- node_faults -->")[2].partition("<!-- /node_faults -->")[0]
    old = [line.strip("| ").split(" | ") for line in there.splitlines() if line.startswith("| ")]
    known = {row[0]: row for row in [*old, *rows]}
    return [known[title] for title, _ in FAULTS.values() if title in known]


def main() -> None:
    parser = arguments(__doc__, repeat=1)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}")
    given = parser.parse_args()
    table = Table("node_faults", HEADINGS)
    for name in given.faults or FAULTS:
        title, act = FAULTS[name]
        with two_hosts.two_hosts() as hosts, tempfile.TemporaryDirectory() as place:
            trial = Trial(hosts, Path(place))
            try:
                table.add(title, *" | ".join(act(trial)).split(" | "))
            except SystemExit as error:
                # It is in the table: what was not seen is not left out.
                print(error, file=sys.stderr)
                table.add(title, "-", "not within the time limit of this benchmark", "-", "-", "-")
            finally:
                for pid in trial.left():
                    os.kill(pid, signal.SIGKILL)
        print(" | ".join(table.rows[-1]), flush=True)
    if given.markdown is not None:
        table.rows = _merged(table.rows, given.markdown.read_text())
    table.notes = [
        "One run of each; rows may be of different runs of this program on the same machine.",
        "Known after: until the result is in the side file; for a controller, until the node has no process.",
    ]
    publish(table, given.markdown)


if __name__ == "__main__":
    why = two_hosts.why_not()
    if why:
        raise SystemExit(why)
    main()
