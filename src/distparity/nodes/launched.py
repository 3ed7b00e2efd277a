"""What a launcher (torchrun, Slurm) said about the processes that it started, and how they meet."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distparity.core.bad_request import BadRequest

__all__ = ["JOIN_LIMIT", "Launch", "Meeting", "found", "token_in"]

#: Seconds for all nodes to join.
JOIN_LIMIT = 300.0
#: Seconds for torchrun's store to be left.
_CLOSING = 5.0


@dataclass(frozen=True)
class Launch:
    """One process on each of several nodes, started by ``by``; that of ``rank`` 0 is the controller."""

    by: str
    rank: int
    nodes: int


def found(environ: Mapping[str, str]) -> Launch | None:
    """The launch that this process belongs to; None if it is alone.

    Raises :class:`BadRequest` if there are several processes on one node.
    """
    if "TORCHELASTIC_RUN_ID" in environ:
        nodes, here = int(environ["GROUP_WORLD_SIZE"]), int(environ["LOCAL_WORLD_SIZE"])
        if nodes > 1 and here > 1:
            raise BadRequest(
                f"torchrun has started {here} processes on each node: give it --nproc-per-node=1, "
                "because distparity forks the ranks itself"
            )
        return Launch("torchrun", int(environ["GROUP_RANK"]), nodes) if nodes > 1 else None
    # srun sets these for the processes of a step.
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS") or 1)
    if tasks <= 1 or "SLURM_PROCID" not in environ:
        return None
    if int(environ.get("SLURM_STEP_NUM_NODES") or tasks) != tasks:
        raise BadRequest(
            f"srun has started {tasks} tasks on {environ['SLURM_STEP_NUM_NODES']} nodes: give it "
            "--ntasks-per-node=1, because distparity forks the ranks itself"
        )
    return Launch("slurm", int(environ["SLURM_PROCID"]), tasks)


class Meeting:
    """Where the controller leaves its address and the run's token, for its nodes only.

    Under torchrun in the store that it made, under Slurm in a file of mode 0600 in ``folder``, which all
    nodes share.
    """

    def __init__(self, by: str, folder: Path) -> None:
        self._by = by
        self._helper: subprocess.Popen[str] | None = None
        env = os.environ
        if by == "slurm":
            # A job that is queued again is another run.
            names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
            name = ".".join(env.get(name, "0") for name in names)
            self.path = folder / f".distparity-nodes-{name}"

    @property
    def host(self) -> str:
        """A host in whose direction the controller's own interface is."""
        name = "MASTER_ADDR" if self._by == "torchrun" else "SLURM_LAUNCH_NODE_IPADDR"
        return os.environ.get(name, "")

    def dropped(self, limit: float) -> str:
        """Where connections from here are dropped, for ``limit`` seconds; "" if they are not, or need none."""
        if self._by != "torchrun":
            return ""
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            socket.create_connection((host, port), limit).close()
        except TimeoutError:
            return f"torchrun's store at {host}:{port}"
        except OSError:
            # It is refused as long as nobody listens.
            pass
        return ""

    def publish(self, message: dict[str, Any]) -> None:
        """Leave a message; under torchrun this takes as long as importing torch, and is not waited for."""
        if self._by == "torchrun":
            self._helper = self._start(json.dumps(message))
            return
        part = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as out:
            json.dump(message, out)
        part.replace(self.path)

    def read(self, limit: float = JOIN_LIMIT) -> dict[str, Any]:
        """Wait for the controller's message. Raises :class:`BadRequest` after ``limit`` seconds.

        After torchrun has restarted its processes, it may still be that of the controller before.
        """
        if self._by == "torchrun":
            helper = self._start(None, limit)
            out, error = helper.communicate()
            if helper.returncode != 0:
                last = error.strip().splitlines()[-1:] or ["no output"]
                raise BadRequest(f"torchrun's store has no message of the controller: {last[0]}")
            text = json.loads(out)["value"]
        else:
            text = self._from_file(limit)
        found: dict[str, Any] = json.loads(text)
        return found

    def _from_file(self, limit: float) -> str:
        until = time.monotonic() + limit
        while time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError):
                return _private(self.path)
            time.sleep(0.1)
        raise BadRequest(
            f"no message of the controller in {self.path} after {limit:g} s: the nodes must share "
            "the folder of the reports"
        )

    def _start(self, value: str | None, limit: float = JOIN_LIMIT) -> subprocess.Popen[str]:
        env = os.environ
        agents = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        asked = {
            "host": env["MASTER_ADDR"],
            "port": int(env["MASTER_PORT"]),
            # Without a count of restarts: each of torchrun's agents counts only those that it began.
            "key": "distparity",
            "value": value,
            "serve": value is not None and not agents,
            "seconds": limit,
        }
        helper = subprocess.Popen(
            [sys.executable, "-m", "distparity.worker.meeting"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert helper.stdin is not None
        helper.stdin.write(f"{json.dumps(asked)}\n")
        helper.stdin.flush()
        return helper

    def trouble(self) -> str:
        """Why the message could not be left; "" if it was, or may yet be."""
        if self._helper is None or self._helper.poll() in (None, 0):
            return ""
        _, error = self._helper.communicate()
        return f"torchrun's store cannot be used: {(error.strip().splitlines() or ['?'])[-1]}"

    def close(self) -> None:
        if self._helper is not None:
            # Leaving it closes its pipes.
            with self._helper as helper:
                with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
                    helper.communicate(timeout=_CLOSING)
                helper.kill()
        elif self._by == "slurm":
            self.path.unlink(missing_ok=True)


def token_in(path: Path, *, make: bool) -> str:
    """The token in a file; with ``make``, a new one if there is no file.

    Raises :class:`BadRequest` if others than its owner may read the file.
    """
    if make:
        with contextlib.suppress(FileExistsError):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "w") as out:
                out.write(f"{secrets.token_hex(32)}\n")
    try:
        token = _private(path).strip()
    except OSError as error:
        raise BadRequest(f"--token-file {path}: {error.strerror}") from None
    if len(token) < 32:
        raise BadRequest(f"--token-file {path}: a token has at least 32 characters")
    return token


def _private(path: Path) -> str:
    with path.open() as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise BadRequest(f"{path} has the mode {stat.S_IMODE(mode):04o}: chmod 600 {path}")
        return file.read()
