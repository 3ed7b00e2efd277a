"""Tasks that look at where a rank's time goes; ranks import this by way of ``--include``."""

from __future__ import annotations

import statistics
import time
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from distparity.devices.context import RankContext
from distparity.training.trajectory import Trajectory
from distparity.worker import tasks

Answer = tuple[dict[str, Any], list[bytes]]


def timed_parity(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """The task ``parity``, with the seconds of its parts and the CPU time of this rank's threads."""
    saving: list[float] = []

    def save(run: Trajectory, path: str) -> int:
        started = time.perf_counter()
        size = saves(run, path)
        saving.append(time.perf_counter() - started)
        return size

    saves = Trajectory.save
    wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
    with mock.patch.object(Trajectory, "save", save):
        answer, blobs = tasks.parity(context, args, blobs)
    seconds, own = time.perf_counter() - wall, time.thread_time() - thread
    return {
        **answer,
        "train": seconds - sum(saving),
        "serialise": sum(saving),
        "own": own,
        "others": time.process_time() - process - own,
    }, blobs


def count_collectives(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """How many collectives this rank takes part in during a case."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        tasks.parity(context, args, blobs)
    found = sum(event.name.startswith("c10d::") for event in profile.events())
    return {"collectives": found}, []


def all_reduce(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Seconds of one all-reduce of a few numbers, the median of many in a row."""
    value = torch.ones(8)
    found = []
    for _ in range(args["times"]):
        started = time.perf_counter()
        dist.all_reduce(value)
        found.append(time.perf_counter() - started)
    return {"seconds": statistics.median(found)}, []


tasks.TASKS.update({task.__name__: task for task in (timed_parity, count_collectives, all_reduce)})
