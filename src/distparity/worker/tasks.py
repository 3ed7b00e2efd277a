"""What a rank can be told to do. Each task takes JSON and bytes, and answers with JSON and bytes.

This is the whole of what the controller knows of torch: names of tasks.
"""

from __future__ import annotations

import os
import traceback
from typing import Any

import torch
import torch.distributed as dist

from distparity import devices, mutants, operations, scenarios, strategies
from distparity.core import participation, refusal
from distparity.core.registry import family
from distparity.devices import examination, numerics
from distparity.devices.context import RankContext
from distparity.operations.task import operate, weigh
from distparity.torch_support import origin
from distparity.torch_support.version import installed
from distparity.training import reference
from distparity.training.loop import Recipe, train
from distparity.training.trajectory import Trajectory
from distparity.verification import diagnosis, evidence, nondeterminism, verdict
from distparity.verification.constants import FACTOR
from distparity.verification.tolerance import Tolerance
from distparity.worker.rank_loop import Task

__all__ = ["TASKS", "facts"]

#: The dtypes of parameters and data that a case may have.
_FLOATS = ("float64", "float32", "bfloat16", "float16")

#: The collective backends that torch can be built with.
_BACKENDS = ("gloo", "nccl", "xccl", "mpi", "ucc")

Answer = tuple[dict[str, Any], list[bytes]]


def facts() -> dict[str, Any]:
    """What the torch that is imported is, and which cases can be made; touches no device."""
    return {
        "torch": torch.__version__,
        "torch_git": torch.version.git_version,
        "torch_cuda": torch.version.cuda,
        "torch_hip": torch.version.hip,
        "torch_xpu": getattr(torch.version, "xpu", None),
        "numpy": _numpy(),
        "collectives": [name for name in _BACKENDS if _is_built_in(name)],
        "torch_release": list(installed()),
        "scenarios": {
            name: {
                "file": scenarios.sources()[name],
                "family": family(type(scenario)),
                "anchor": scenarios.is_anchor(type(scenario)),
                "slow": bool(vars(type(scenario)).get("slow", False)),
                "dtypes": list(scenario.dtypes),
                "features": scenario.features(),
                "computes": scenario.computes_in(),
                "steps": scenario.steps,
                "reload_after": scenario.reload_after,
                "reduce_dtype": None
                if scenario.precision is None
                else scenario.precision.reduce_dtype,
                "traits": list(scenario.traits),
            }
            for name, scenario in scenarios.load().items()
        },
        "operations": operations.facts(),
        "operation_faults": operations.visible(),
        "devices": devices.kinds(),
        "rounding": {name: FACTOR * torch.finfo(getattr(torch, name)).eps / 2 for name in _FLOATS},
        "mutants": {
            name: {
                "title": kind.title,
                "diagnosis": kind.diagnosis,
                "equivalent": kind.equivalent,
                "size": kind.size,
                "needs": kind.needs,
                "sharded": kind.sharded,
                "exchange": kind.in_exchange(),
                "at_step": kind.at_step,
                "spares_first": kind.spares_first,
            }
            for name, kind in mutants.load().items()
        },
        "strategies": {
            name: {
                "title": strategy.title,
                "limits": [limit.to_json() for limit in strategy.limits],
                "tier": strategy.tier,
                "lacks": dict(strategy.lacks),
                "needs": dict(strategy.needs),
                "made_for": list(strategy.made_for),
                "least_ranks": strategy.least_ranks,
                "ranks_multiple_of": strategy.ranks_multiple_of,
                "reduce_dtype": strategy.reduce_dtype,
                "replicates": strategy.replicates,
                "exchanges": strategy.exchanges,
                "multiplies": strategy.multiplies,
                "enters_at_first": strategy.enters_at_first,
                "resume_world_size": strategy.resume_world_size,
                "most_ranks": strategy.most_ranks,
            }
            for name, strategy in strategies.load().items()
        },
    }


def _numpy() -> str | None:
    """Its version; torch's collectives of objects go through it."""
    try:
        import numpy
    except ImportError:
        return None
    return str(numpy.__version__)


def _is_built_in(backend: str) -> bool:
    """Whether torch was built with a collective backend; older releases do not know of all."""
    asked = getattr(dist, f"is_{backend}_available", None)
    return asked is not None and bool(asked())


def probe(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
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
        "no_reductions": list(kind.no_reductions),
        "refuses": dict(kind.refuses),
        "numerics": numerics.ask(device, lacks),
        "start_seconds": kind.start_seconds,
        "exclusive": kind.exclusive,
        "sharing": {
            way.name: {"backend": way.backend, "refuses": {**kind.refuses, **way.refuses}}
            for way in kind.sharing()
        },
    }


def examine(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Examine a kind of device step by step, and log the steps in a file that ``log`` names."""
    kind = devices.get(args["device"])
    if not examination.examine(kind, args["log"]):
        return {}, []
    return {
        "count": kind.count(),
        "most_ranks": kind.most_ranks(),
        "start_seconds": kind.start_seconds,
        "exclusive": kind.exclusive,
        "sharing": [way.name for way in kind.sharing()],
    }, []


def smoke(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Try every collective, and log each, in a file a rank."""
    examination.collectives(context, args["log"])
    return {}, []


def ask(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Make a strategy's smallest training, or a scenario's, and say how torch refused it, if it did."""
    strategy = strategies.load()[args["strategy"]]
    dtype, features = args["dtype"], args["features"]
    where = (installed(), context.kind.kind, dtype, features, context.kind.no_reductions)
    try:
        if args["scenario"] is not None:
            train(_recipe(args), strategy, context)
        else:
            strategy.attempt(context, getattr(torch, dtype), features)
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        answers = [(one.answer, one.fact) for one in strategy.limits if one.applies(*where)]
        whose = origin.of(error, context.kind.packages)
        fact = refusal.fact_of(answers, str(error), whose)
        if fact is None:
            raise
        return {"refused": f"{fact}: torch {torch.__version__} says {text}"}, []
    return {"refused": None}, []


def parity(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Train a case, with a mutant in it where one is named; answers with this rank's trajectory."""
    phase = args["phase"]
    strategy = strategies.load()[args["strategy"]].phase(phase)
    context.kind.forget_peak()
    recipe = _recipe(args)
    mine = participation.of(recipe.scenario, args["worlds"])[phase][context.rank]
    how: dict[str, Any] = {"participation": mine, "folder": args["folder"]}
    if args.get("mutant") is None:
        trajectory = train(recipe, strategy, context, **how)
    else:
        with mutants.mutate(strategy, mutants.load()[args["mutant"]], context) as mutated:
            trajectory = train(recipe, mutated, context, **how)
    context.kind.synchronize()
    return {"peak_memory": context.kind.peak_memory()}, [trajectory.to_bytes()]


def consult(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Train the oracle; answers with its trajectory and its parts', and the scenario's faults."""
    recipe = _recipe(args)
    found = reference.consult(recipe, context, args["parts"])
    twin = reference.consult(recipe, context, args["parts"])
    faults = []
    if found.trajectory.to_bytes() != twin.trajectory.to_bytes():
        faults.append("two runs of it in one process differ: it is not deterministic")
    runs = [found.trajectory, *found.parts]
    return {"faults": faults}, [run.to_bytes() for run in runs]


def reference_runs(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Train the native runs; answers with their trajectories, and whether the same comes out again."""
    recipe, reduce_dtype = _recipe(args), _travels(args)
    runs = reference.reference_runs(recipe, context, args["parts"], reduce_dtype)
    found: dict[str, Any] = {}
    # On the CPU the oracle is trained twice, and a scenario that differs is refused.
    if context.device.type != "cpu":
        more = [reference.again(recipe, context, args["parts"], reduce_dtype) for _ in range(2)]
        different, found["nondeterminism"] = nondeterminism.measure(runs[0], more)
        runs += different
        if recipe.dtype in (torch.float32, torch.float64):
            bits = numerics.kept_bits(context.device, recipe.dtype)
            for run in runs:
                run.products = 2.0 ** -(bits + 1)
    return found, [run.to_bytes() for run in runs]


def alive(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Say what makes the scenario worthless as evidence; takes the oracle's and native runs."""
    scenario = scenarios.load()[args["scenario"]]
    tolerance = _tolerance(args, blobs)
    facts: dict[str, Any] = {}
    if scenario.exempt:
        facts["exempt"] = [f"{kind}: {why}" for kind, why in scenario.exempt.items()]
    apart = devices.get(args["device"]).sums_apart
    if apart is not None:
        facts["sums_apart"] = apart
    shows = evidence.one_rank_shows_below(tolerance)
    if shows is not None:
        facts["one_rank_shows_below"] = shows
    wrong = evidence.wrong_in_one_process(tolerance)
    return {"faults": evidence.faults(scenario, tolerance), "wrong": wrong, "facts": facts}, []


def judge(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Compare trajectories: the oracle's, its ``parts`` parts', the native ones, one per rank."""
    ranks = [Trajectory.from_bytes(blob) for blob in blobs[-args["ranks"] :]]
    tolerance = _tolerance(args, blobs[: -args["ranks"]])
    scenario = scenarios.load()[args["scenario"]]
    who = [one for world in participation.of(scenario, args["worlds"]) for one in world]
    apart = devices.get(args["device"]).sums_apart is not None
    found = verdict.judge(tolerance, ranks, scenario.exempt, who, sums_apart=apart)
    if not found.passed:
        coarsest = max(
            torch.finfo(getattr(torch, name)).eps / 2
            for name in (args["dtype"], args["reduce_dtype"], scenario.computes_in())
            if name is not None
        )
        found.diagnosis = diagnosis.diagnose(
            tolerance.oracle, ranks, found, tolerance.dtype, coarsest
        )
    return found.to_json(), []


def _tolerance(args: dict[str, Any], blobs: list[bytes]) -> Tolerance:
    """From the bytes of the oracle's run, its ``parts`` parts' and the native runs.

    Strategies and mutants share them; a process that judges keeps the last few.
    """
    key = tuple(str(args[name]) for name in _REFERENCE)
    if key not in _KNOWN:
        runs = [Trajectory.from_bytes(blob) for blob in blobs]
        exact = reference.Oracle(runs[0], runs[1 : 1 + args["parts"]])
        dtype = getattr(torch, args["dtype"])
        computes = scenarios.load()[args["scenario"]].computes_in()
        made = Tolerance(
            exact,
            runs[1 + args["parts"] :],
            args["parts"],
            dtype,
            _travels(args),
            None if computes is None else getattr(torch, computes),
            multiplies=args["multiplies"],
        )
        _KNOWN[key] = made
        if len(_KNOWN) > MOST_KNOWN:
            del _KNOWN[next(iter(_KNOWN))]
    return _KNOWN[key]


#: What tells the references of one run of the suite from one another.
_REFERENCE = ("device", "scenario", "dtype", "parts", "reduce_dtype", "multiplies", "seed")
_KNOWN: dict[tuple[str, ...], Tolerance] = {}
MOST_KNOWN = 8


def _travels(args: dict[str, Any]) -> torch.dtype | None:
    return None if args["reduce_dtype"] is None else getattr(torch, args["reduce_dtype"])


def _recipe(args: dict[str, Any]) -> Recipe:
    scenario = scenarios.load()[args["scenario"]]
    dtype = getattr(torch, args["dtype"])
    rows = scenario.rows_per_rank * args["parts"]
    return Recipe(scenario, dtype, dtype, rows, args["seed"])


TASKS: dict[str, Task] = {
    task.__name__: task
    for task in (
        probe,
        examine,
        smoke,
        ask,
        parity,
        consult,
        reference_runs,
        alive,
        judge,
        operate,
        weigh,
    )
}
