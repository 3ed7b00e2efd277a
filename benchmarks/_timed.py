"""Tasks that look at where a rank's time goes; ranks import this by way of ``--include``."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
import torch.distributed as dist

from distparity import strategies
from distparity.core.assignment import Training
from distparity.devices.context import RankContext
from distparity.training.loop import train
from distparity.worker import tasks

Answer = tuple[dict[str, Any], list[bytes]]


def timed_parity(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """The task ``parity``, with the seconds of its parts and the CPU time of this rank's threads."""
    plan = Training.from_json(args)
    strategy = strategies.load()[plan.strategy]
    recipe = tasks._recipe_of(plan)  # noqa: SLF001  the very recipe that is measured
    wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
    run = train(recipe, strategy, context)
    trained = time.perf_counter()
    places = [run.save(plan.spool)]
    own = time.thread_time() - thread
    return {
        "train": trained - wall,
        "serialise": time.perf_counter() - trained,
        "own": own,
        "others": time.process_time() - process - own,
        "places": places,
    }, []


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
