"""One job of a real Slurm over two hosts on this machine, as ``ci/slurm.sbatch`` starts it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
import slurm
import two_hosts
from two_hosts import BEFORE, LIMIT

SCRIPT = Path(__file__).parents[1] / "ci" / "slurm.sbatch"


def test_a_job_of_slurm_runs_on_both_hosts(tmp_path: Path) -> None:
    why = slurm.why_not()
    if why:
        pytest.skip(why)
    with two_hosts.two_hosts() as hosts, slurm.slurm(hosts) as cluster:
        # As it would be after "activate".
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        log = tmp_path / "log"
        words = ["--device", "cpu", "--placement", "both", "--cell", "x", "--case", BEFORE]
        job = cluster.say(
            *("sbatch", "--parsable", f"--output={log}", str(SCRIPT), *words),
            cwd=tmp_path,
            environ={"PATH": path},
        )
        until = time.monotonic() + LIMIT
        while cluster.job(job)["JobState"] in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        assert cluster.job(job)["JobState"] == "COMPLETED", log.read_text()
        text = (tmp_path / f"reports-{job}" / "junit-x-cpu.xml").read_text()
        both = f"{hosts.name(1)} {hosts.name(2)}"
        assert f'<property name="nodes" value="{hosts.name(1)} {hosts.name(1)}; {both}"' in text
        assert not list((tmp_path / f"reports-{job}").glob(".distparity-nodes-*"))
