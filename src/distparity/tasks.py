"""What a rank can be told to do. Each task takes JSON and bytes, and answers with JSON and bytes.

This is the whole of what the controller knows of torch: names of tasks.
"""

from __future__ import annotations

import json
import os
import re
import traceback
from collections.abc import Callable
from typing import Any

import torch

from distparity import devices, oracle, scenarios, strategies, verdict
from distparity.devices import numerics
from distparity.torchversion import installed
from distparity.training import Recipe, train
from distparity.trajectory import Trajectory
from distparity.worlds.rank import Place

__all__ = ["TASKS", "facts"]

Answer = tuple[dict[str, Any], list[bytes]]


def facts() -> dict[str, Any]:
    """What the torch that is imported is, and which cases can be made; touches no device."""
    return {
        "torch": torch.__version__,
        "torch_git": torch.version.git_version,
        "torch_cuda": torch.version.cuda,
        "torch_hip": torch.version.hip,
        "torch_release": list(installed()),
        "scenarios": {
            name: {"file": scenarios.sources()[name], "dtypes": list(scenario.dtypes)}
            for name, scenario in scenarios.load().items()
        },
        "devices": devices.kinds(),
        "strategies": {
            name: {"title": strategy.title, "asks": _asks(strategy)}
            for name, strategy in strategies.load().items()
        },
    }


def _asks(strategy: strategies.Strategy) -> list[str]:
    """The kinds of device on which this torch must be asked about the strategy."""
    return [kind for kind in devices.kinds() if _limits(strategy, kind)]


def _limits(strategy: strategies.Strategy, kind: str) -> list[strategies.Limit]:
    return [limit for limit in strategy.limits if limit.applies(installed(), kind)]


def probe(place: Place, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """What a kind of device is, here; a plug-in that fails is an answer as well."""
    try:
        return _look(devices.get(args["device"])), []
    except devices.PluginError as error:
        return {"absent": str(error), "broken": traceback.format_exc()}, []


def _look(kind: devices.Device) -> dict[str, Any]:
    os.environ.update(kind.environment(0))
    absent = kind.absent()
    if absent is not None:
        return {"absent": absent}
    device = kind.take(0)
    kind.exact()
    lacks = kind.lacks()
    return {
        "absent": None,
        "type": kind.kind,
        "count": kind.count(),
        "most_ranks": kind.most_ranks(),
        "name": kind.describe(),
        "backend": kind.backend(),
        "backend_version": kind.backend_version(),
        "lacks": lacks,
        "numerics": numerics.ask(device, lacks),
        "start_seconds": kind.start_seconds,
    }


def ask(place: Place, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Make a strategy's smallest training, and say how torch refused it, if it did."""
    strategy = strategies.load()[args["strategy"]]
    limits = _limits(strategy, place.kind.kind)
    try:
        model = torch.nn.Linear(2, 2).to(place.device)
        wrapped = strategy.wrap(model, [], place)
        wrapped(torch.ones(1, 2, device=place.device)).sum().backward()
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        for limit in limits:
            if re.search(limit.answer, str(error)):
                return {"refused": f"{limit.fact}: torch {torch.__version__} says {text}"}, []
        raise
    return {"refused": None}, []


def parity(place: Place, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Train a case; answers with this rank's trajectory."""
    strategy = strategies.load()[args["strategy"]]
    place.kind.forget_peak()
    trajectory = train(_recipe(args), strategy, place)
    place.kind.synchronize()
    return {"peak_memory": place.kind.peak_memory()}, [trajectory.to_bytes()]


def consult(place: Place, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Train the oracle; answers with its trajectory, and what is wrong with the scenario."""
    recipe = _recipe(args)
    found = oracle.consult(recipe, place, args["parts"])
    twin = oracle.consult(recipe, place, args["parts"])
    faults = oracle.check_alive(found, recipe.dtype, args["parts"])
    if found.trajectory.to_bytes() != twin.trajectory.to_bytes():
        faults.append("two runs of it in one process differ: it is not deterministic")
    result = {"magnitude": found.magnitude, "spread": found.spread, "faults": faults}
    return result, [found.trajectory.to_bytes()]


def natives(place: Place, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Train the native runs; answers with their trajectories."""
    return {}, [run.to_bytes() for run in oracle.natives(_recipe(args), place, args["parts"])]


def judge(place: Place, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Compare trajectories: the oracle's, then ``natives`` native ones, then one per rank."""
    runs = [Trajectory.from_bytes(blob) for blob in blobs]
    exact = oracle.Oracle(runs[0], args["magnitude"], args["spread"])
    split = 1 + args["natives"]
    found = verdict.judge(exact, runs[1:split], runs[split:], getattr(torch, args["dtype"]))
    json.dumps(found.to_json(), allow_nan=False)
    return found.to_json(), []


def _recipe(args: dict[str, Any]) -> Recipe:
    scenario = scenarios.load()[args["scenario"]]
    dtype = getattr(torch, args["dtype"])
    rows = scenario.rows_per_rank * args["parts"]
    return Recipe(scenario, dtype, dtype, rows, args["seed"])


TASKS: dict[str, Callable[[Place, dict[str, Any], list[bytes]], Answer]] = {
    task.__name__: task for task in (probe, ask, parity, consult, natives, judge)
}
