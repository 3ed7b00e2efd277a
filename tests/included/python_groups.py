"""Process groups as vendors write them, each used once under our log of collectives.

Run as a program, it prints JSON: by kind of group, the error of each call, and how many calls the log saw.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from distparity.worker.collective_log import CollectiveLog

ProcessGroup: Any = dist.ProcessGroup


class Inherits(ProcessGroup):  # type: ignore[misc]  # torch's annotations are for callers
    """Overrides nothing: torch's own methods hand over to the backend that it registers."""

    def __init__(self, options: Any) -> None:
        super().__init__(options.group_rank, options.group_size)
        kind = dist.ProcessGroup.BackendType.CUSTOM
        self.gloo = gloo(options)
        self._set_default_backend(kind)
        self._register_backend(torch.device("cpu"), kind, self.gloo)


class Overrides(Inherits):
    """Overrides every method that is called here."""

    def allreduce(self, *args: Any) -> Any:
        return self.gloo.allreduce(*args)

    def broadcast(self, *args: Any) -> Any:
        return self.gloo.broadcast(*args)

    def allgather(self, *args: Any) -> Any:
        return self.gloo.allgather(*args)

    def barrier(self, *args: Any, **kwargs: Any) -> Any:
        return self.gloo.barrier(*args, **kwargs)


class Derived(Overrides):
    """Inherits its methods from another class in Python."""


def gloo(options: Any) -> Any:
    """A backend in C++, of which torch makes the group."""
    make: Any = dist.ProcessGroupGloo
    return make(options.store, options.group_rank, options.group_size, options.timeout)


GROUPS: dict[str, Callable[[Any], Any]] = {
    "inherits": Inherits,
    "overrides": Overrides,
    "derived": Derived,
    "native": gloo,
}


def use(name: str, folder: str) -> None:
    register: Any = dist.Backend.register_backend
    register(name, lambda options, _: GROUPS[name](options), extended_api=True, devices=["cpu"])
    store = dist.FileStore(f"{folder}/{name}.store", 1)
    dist.init_process_group(name, store=store, rank=0, world_size=1)
    log = CollectiveLog()
    log.keep()
    one = torch.ones(3)
    calls: dict[str, Callable[[], Any]] = {
        "all_reduce": lambda: dist.all_reduce(one),
        "broadcast": lambda: dist.broadcast(one, 0),
        "all_gather": lambda: dist.all_gather([torch.zeros(3)], one),
        "barrier": dist.barrier,
    }
    found = {}
    for call, act in calls.items():
        try:
            act()
        except Exception as error:
            found[call] = type(error).__name__
        # torch holds the GIL while it calls an inherited method, and gloo's thread waits for the GIL
        # with its lock held when it drops a tensor. That must have happened before the next call.
        time.sleep(0.2)
    Path(folder, name).write_text(json.dumps([found, log.count]))


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        processes = [fork.Process(target=use, args=(name, folder)) for name in GROUPS]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        results = {name: json.loads(Path(folder, name).read_text()) for name in GROUPS}
    json.dump(results, sys.stdout)
