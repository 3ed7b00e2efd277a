"""Ranks that train again and again, without one statement or another."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from distparity_async.order.campaign import Found, Job
from distparity_async.order.statements import Statements
from distparity_async.order.trainings import TRAININGS

__all__ = ["Worlds"]

#: Seconds for one training; without faults it takes about one.
LIMIT = 60.0
#: So many trainings later, a world starts anew: each process group of gloo has threads that never end.
MOST_JOBS = 10


class Worlds:
    """A world for each number of ranks, which is started when it is needed, and anew from time to time."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._worlds: dict[int, _World] = {}

    def run(self, job: Job) -> Found:
        ranks = TRAININGS[job.training].ranks
        if ranks not in self._worlds:
            self._worlds[ranks] = _World(ranks, self._statements)
        world = self._worlds[ranks]
        found = world.run(job)
        if found.failure or world.jobs >= MOST_JOBS:
            self._worlds.pop(ranks).end()
        return found

    def end(self) -> None:
        for world in self._worlds.values():
            world.end()
        self._worlds.clear()


class _World:
    def __init__(self, ranks: int, statements: Statements) -> None:
        # The ranks are forks, so that the statements are looked for once.
        context = multiprocessing.get_context("fork")
        self._folder = tempfile.TemporaryDirectory()
        self._pipes, self._processes = [], []
        #: How many it has run.
        self.jobs = 0
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            where = f"file://{self._folder.name}/store"
            given = (rank, ranks, where, theirs, statements)
            process = context.Process(target=_rank, args=given, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, job: Job) -> Found:
        self.jobs += 1
        found = Found()
        for pipe in self._pipes:
            pipe.send(job)
        waiting: list[Any] = list(self._pipes)
        answers: dict[Any, dict[str, Any]] = {}
        while waiting and not found.failure:
            ready: list[Any] = multiprocessing.connection.wait(waiting, LIMIT)
            if not ready:
                found.failure = f"no answer within {LIMIT:.0f} seconds"
            for pipe in ready:
                waiting.remove(pipe)
                try:
                    answers[pipe] = pipe.recv()
                except EOFError:
                    answers[pipe] = {"failure": "a rank has died"}
                found.failure = found.failure or answers[pipe].get("failure", "")
        if found.failure:
            return found
        for pipe in self._pipes:
            answer = answers[pipe]
            found.digests.append(answer["digest"])
            found.reports += answer["reports"]
            for name, times in answer["reached"].items():
                found.reached[name] = found.reached.get(name, 0) + times
        return found

    def end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._folder.cleanup()


def _rank(rank: int, ranks: int, where: str, pipe: Any, statements: Statements) -> None:
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import distparity_async as asim

    asim.register()
    dist.init_process_group("asimccl", init_method=where, rank=rank, world_size=ranks)
    names = statements.names()
    # What torch is made of is not looked through each time.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(EOFError):
        while True:
            job = pipe.recv()
            gc.collect()
            asim.begin(job.mode)
            statements.reached.clear()
            statements.left_out = None if job.left_out is None else names[job.left_out]
            try:
                digest = hashlib.sha256(b"".join(_bytes(TRAININGS[job.training].run())))
                reports = asim.races()
            except Exception:
                pipe.send({"failure": traceback.format_exc(limit=-4)})
                continue
            finally:
                statements.left_out = None
            reached = {
                one.name: statements.reached[number]
                for number, one in enumerate(statements.all)
                if statements.reached[number]
            }
            pipe.send({"digest": digest.hexdigest(), "reports": reports, "reached": reached})
    os._exit(0)


def _bytes(tensors: list[torch.Tensor]) -> Iterator[bytes]:
    for tensor in tensors:
        yield tensor.cpu().double().numpy().tobytes()
