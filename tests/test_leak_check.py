"""What a task leaves behind is found, each kind in a process of its own."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import nn

from distparity import devices
from distparity.worker.leak_check import Snapshot


def patch(owner: object, name: str) -> None:
    setattr(owner, name, lambda *_: None)


def train() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()


#: What is changed -> what is said of it.
CHANGES: dict[str, tuple[Callable[[], object], list[str]]] = {
    "nothing": (lambda: None, []),
    "a training": (train, []),
    "a method": (lambda: patch(nn.Linear, "forward"), ["functions of torch"]),
    "a function": (lambda: patch(nn.functional, "linear"), ["functions of torch"]),
    "an optimizer's step": (lambda: patch(torch.optim.SGD, "step"), ["functions of torch"]),
    "a collective": (
        lambda: patch(torch.distributed.distributed_c10d, "all_reduce"),
        ["functions of torch"],
    ),
    "warnings": (lambda: warnings.filterwarnings("error", "of mine"), ["warnings that are errors"]),
    "a filter": (lambda: warnings.simplefilter("ignore"), []),
    "a signal": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}),
        ["signal mask"],
    ),
    "the fault handler": (faulthandler.disable, ["fault handler"]),
    "its priority": (lambda: os.nice(1), ["priority or affinity"]),
    "its processors": (
        lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]),
        ["priority or affinity"],
    ),
    "a file": (lambda: os.open(os.devnull, os.O_RDONLY), ["open files"]),
    "a socket": (lambda: os.dup(os.pidfd_open(os.getpid())), []),
    "the scratch folder": (lambda: shutil.rmtree(tempfile.gettempdir()), ["temporary files"]),
    "the user": (lambda: os.setuid(65534), ["user", "temporary files"]),
}
NEEDS = {
    "the user": os.getuid() == 0,
    "its processors": len(os.sched_getaffinity(0)) > 1,
}


#: Processes of it are forks of one that has imported torch and computed nothing: after a backward pass
#: here, torch would refuse one in a fork of this process.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["distparity.devices.cpu", "distparity.worker.leak_check"])


def tell(what: str, folder: str, answer: Connection) -> None:
    """Make a change, and send what is found of it."""
    try:
        tempfile.tempdir = folder
        # As the fork server has it; torch would set it when a first optimizer steps.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        faulthandler.enable(2)
        before = Snapshot(devices.get("cpu"))
        CHANGES[what][0]()
        answer.send("; ".join(before.left_behind()))
    except Exception as error:
        answer.send(f"raised {type(error).__name__}: {error}")


@pytest.mark.parametrize("what", CHANGES)
def test_change_is_found(what: str, tmp_path: Path) -> None:
    if not NEEDS.get(what, True):
        pytest.skip("cannot be changed here")
    answer, theirs = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=tell, args=(what, str(tmp_path), theirs))
    process.start()
    theirs.close()

    with answer:
        assert answer.recv() == "; ".join(CHANGES[what][1])
    process.join()
