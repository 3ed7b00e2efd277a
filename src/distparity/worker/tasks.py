"""The tasks of a rank. Each takes JSON and byte strings, and returns JSON and byte strings.

The controller knows only their names: it never imports this module, or torch.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from distparity import devices, mutants, operations, scenarios, strategies
from distparity.core import participation, processes, refusal
from distparity.core.assignment import Judging, Question, Stored, Training
from distparity.core.judgement import Quantity
from distparity.core.registry import family, file
from distparity.core.torch_facts import (
    DeviceFacts,
    MutantFacts,
    Probed,
    ScenarioFacts,
    SharingFacts,
    StrategyFacts,
    TorchFacts,
)
from distparity.devices import arithmetic, backends, examination, numerics
from distparity.devices.context import RankContext
from distparity.drawing.grammar import is_drawn
from distparity.operations.task import operate, spell, weigh
from distparity.scenarios import drawn
from distparity.torch_support import origin, private
from distparity.torch_support.version import installed
from distparity.training import promises, reference, room
from distparity.training.loop import Recipe, train
from distparity.training.program.folding import NotWritable
from distparity.training.program.writing import write
from distparity.training.trajectory import Trajectory
from distparity.verification import diagnosis, evidence, nondeterminism, verdict
from distparity.verification.constants import FACTOR
from distparity.verification.tolerance import Tolerance
from distparity.worker.distribution import Observer
from distparity.worker.rank_loop import Task

__all__ = ["TASKS", "facts"]

#: The dtypes that a case may have.
_FLOATS = ("float64", "float32", "bfloat16", "float16")

#: The collective backends that torch may include.
_BACKENDS = ("gloo", "nccl", "xccl", "mpi", "ucc")

Answer = tuple[dict[str, Any], list[bytes]]


def facts(names: Iterable[str] = ()) -> TorchFacts:
    """The facts about the imported torch, and about the cases it can make; touches no device.

    ``names`` are those of drawn scenarios, which are among them unless this torch lacks something.
    """
    return TorchFacts(
        torch=torch.__version__,
        release=installed(),
        git=torch.version.git_version,
        cuda=torch.version.cuda,
        hip=torch.version.hip,
        xpu=getattr(torch.version, "xpu", None),
        numpy=_numpy(),
        gone=tuple(private.gone()),
        collectives=tuple(name for name in _BACKENDS if _is_built_in(name)),
        devices=tuple(devices.kinds()),
        rounding={name: FACTOR * torch.finfo(getattr(torch, name)).eps / 2 for name in _FLOATS},
        scenarios={
            **{name: _scenario(one) for name, one in scenarios.load().items()},
            **{name: _drawn(name) for name in names if drawn.lacking(name) is None},
        },
        operations=operations.facts(),
        strategies={name: _strategy(one) for name, one in strategies.load().items()},
        mutants={name: _mutant(kind) for name, kind in mutants.load().items()},
        operation_faults=operations.visible(),
    )


def _drawn(name: str) -> ScenarioFacts:
    return replace(_scenario(drawn.build(name)), family="")


def _scenario(scenario: scenarios.Scenario) -> ScenarioFacts:
    precision = scenario.precision
    return ScenarioFacts(
        file=file(type(scenario)),
        family=family(type(scenario)),
        anchor=scenarios.is_anchor(type(scenario)),
        slow=bool(vars(type(scenario)).get("slow", False)),
        large=bool(vars(type(scenario)).get("large", False)),
        memory=scenario.memory,
        dtypes=tuple(scenario.dtypes),
        features=tuple(scenario.features()),
        computes_in=scenario.computes_in(),
        reduce_dtype=None if precision is None else precision.reduce_dtype,
        steps=scenario.steps,
        reload_after=scenario.reload_after,
        most_parts=scenario.most_parts,
        stages=len(scenario.stages),
        traits=tuple(scenario.traits),
    )


def _strategy(strategy: strategies.Strategy) -> StrategyFacts:
    return StrategyFacts(
        file=file(type(strategy)),
        title=strategy.title,
        tier=strategy.tier,
        limits=tuple(strategy.limits),
        lacks=dict(strategy.lacks),
        needs=dict(strategy.needs),
        cuts=dict(strategy.cuts),
        made_for=tuple(strategy.made_for),
        least_ranks=strategy.least_ranks,
        most_ranks=strategy.most_ranks,
        ranks_multiple_of=strategy.ranks_multiple_of,
        reduce_dtype=strategy.reduce_dtype,
        replicates=strategy.replicates,
        exchanges=strategy.exchanges,
        multiplies=strategy.multiplies,
        enters_at_first=strategy.enters_at_first,
        resume_world_size=strategy.resume_world_size,
    )


def _mutant(kind: type[mutants.Mutant]) -> MutantFacts:
    return MutantFacts(
        title=kind.title,
        diagnosis=tuple(kind.diagnosis),
        equivalent=kind.equivalent,
        size=kind.size,
        needs=kind.needs,
        sharded=kind.sharded,
        exchange=kind.in_exchange(),
        at_step=kind.at_step,
        spares_first=kind.spares_first,
    )


def _numpy() -> str | None:
    """numpy's version, if it is installed; torch's collectives of objects need it."""
    try:
        import numpy
    except ImportError:
        return None
    return str(numpy.__version__)


def _is_built_in(backend: str) -> bool:
    """Whether this build of torch includes a backend; older releases do not know all of them."""
    asked = getattr(dist, f"is_{backend}_available", None)
    return asked is not None and bool(asked())


def patience(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """The additional seconds that a kind of device declares for its start; loads no vendor's package."""
    try:
        seconds = devices.get(args["device"]).start_seconds
    except devices.PluginError:
        # The probe says what is wrong with it.
        seconds = 0.0
    return {"start_seconds": seconds}, []


def describe(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """The facts about drawn scenarios, by name; what this torch lacks for those that it cannot make."""
    lacking = {name: drawn.lacking(name) for name in args["names"]}
    found = {name: _drawn(name).to_json() for name, lacks in lacking.items() if lacks is None}
    return {"facts": found, "lacking": {name: why for name, why in lacking.items() if why}}, []


def probe(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Probe a kind of device; the failure of a plug-in is an answer too."""
    try:
        found = _look(devices.get(args["device"]))
    except devices.PluginError as error:
        found = Probed(absent=str(error), broken=traceback.format_exc())
    return found.to_json(), []


def _look(kind: devices.Device) -> Probed:
    os.environ.update(kind.environment(0))
    absent = kind.absent()
    if absent is not None:
        return Probed(absent=absent, installed=kind.installed())
    device = kind.take(0)
    arithmetic.apply(kind)
    lacks = kind.lacks()
    found = DeviceFacts(
        type=kind.kind,
        count=kind.count(),
        most_ranks=kind.most_ranks(),
        name=kind.describe(),
        backend=backends.of(kind),
        backend_version=kind.backend_version(),
        lacks=lacks,
        no_reductions=tuple(kind.no_reductions),
        refuses=dict(kind.refuses),
        numerics=numerics.ask(device, lacks),
        start_seconds=kind.start_seconds,
        slowness=kind.slowness,
        exclusive=kind.exclusive,
        sharing={
            way.name: SharingFacts(way.backend, {**kind.refuses, **way.refuses})
            for way in kind.sharing()
        },
        replay=kind.replay(),
        groups=tuple(map(tuple, kind.groups())),
    )
    return Probed(found)


def examine(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Examine a kind of device step by step, and log the steps in the file ``log``."""
    kind = devices.get(args["device"])
    if not examination.examine(kind, args["log"]):
        return {}, []
    return _look(kind).to_json(), []


def smoke(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Try every collective, and log each, in one file per rank."""
    examination.collectives(context, args["log"])
    return {}, []


def ask(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Run a strategy's smallest training, or a scenario's; answers with torch's refusal, if any."""
    asked = Question.from_json(args)
    strategy = strategies.load()[asked.strategy]
    features = list(asked.features)
    where = (installed(), context.kind.kind, asked.dtype, features, context.kind.no_reductions)
    try:
        if asked.scenario is not None:
            recipe = _recipe(asked.scenario, asked.dtype, asked.parts, asked.seed)
            train(recipe, strategy, context)
        else:
            strategy.attempt(context, getattr(torch, asked.dtype), features)
    except Exception as error:
        text = origin.words(error)
        answers = [(one.answer, one.fact) for one in strategy.limits if one.applies(*where)]
        whose = origin.of(error, context.kind.packages)
        fact = refusal.fact_of(answers, f"{text}\n{error}", whose)
        if fact is None:
            raise
        return {"refused": f"{fact}: torch {torch.__version__} says {text}"}, []
    return {"refused": None}, []


def parity(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Train a case, with a mutant if one is named; stores this rank's trajectory."""
    plan = Training.from_json(args)
    strategy = strategies.load()[plan.strategy].phase(plan.phase)
    context.kind.forget_peak()
    private.sanitizer_reports()
    recipe = _recipe_of(plan)
    mine = participation.of(recipe.scenario, plan.worlds)[plan.phase][context.rank]
    observer = Observer()
    how: dict[str, Any] = {"participation": mine, "folder": plan.folder, "watch": observer}
    if plan.mutant is None:
        trajectory = train(recipe, strategy, context, **how)
    else:
        with mutants.mutate(strategy, mutants.load()[plan.mutant], context) as mutated:
            trajectory = train(recipe, mutated, context, **how)
    context.kind.synchronize()
    told = observer.told(strategy.suit(recipe.scenario), context, recipe.rows)
    memory = context.kind.peak_memory()
    places = [trajectory.save(plan.spool)]
    result = {"peak_memory": memory, "distribution": told, "places": places}
    return {**result, "sanitizer": private.sanitizer_reports()}, []


def spell_training(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Write a training as a program that needs torch alone; ``why`` says why there is none.

    All ranks of its world are asked, because making a mesh is a collective call.
    """
    plan = Training.from_json(args["training"])
    first = None if args["first"] is None else Quantity.from_json(args["first"])
    strategy = strategies.load()[plan.strategy]
    try:
        return {"program": write(_recipe_of(plan), strategy, context, first)}, []
    except NotWritable as error:
        return {"program": None, "why": str(error)}, []


def consult(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Train the oracle; stores its trajectory, those of its parts and rows, answers with its faults.

    A scenario that breaks a promise is not trained. Raises
    :class:`distparity.training.room.NoRoomError` before it trains.
    """
    processes.keep_freed_memory()
    plan = Training.from_json(args)
    recipe = _recipe_of(plan)
    # A test asks those of the package. A drawn one is new, and the grammar may be wrong.
    faults = (
        promises.broken(recipe, plan.parts)
        if scenarios.is_foreign(type(recipe.scenario)) or is_drawn(plan.scenario)
        else []
    )
    if faults:
        return {"faults": faults}, []
    room.check(recipe, plan.parts, sum(plan.worlds), plan.spool)
    found = reference.consult(recipe, context, plan.parts)
    places = [run.save(plan.spool) for run in (found.trajectory, *found.parts, found.rows)]
    # In the file, a large one takes no memory while the other is trained.
    del found
    if not Trajectory.load(plan.spool, places[0]).same(reference.twin(recipe, context)):
        faults.append("it is not deterministic: two runs in one process differ")
    return {"faults": faults, "places": places}, []


def reference_runs(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Train the reference runs and store them; answers whether a repetition is equal."""
    plan = Training.from_json(args)
    recipe, reduce_dtype = _recipe_of(plan), _dtype(plan.exchange.reduce_dtype)
    runs: Iterable[Trajectory] = reference.reference_runs(recipe, context, plan.parts, reduce_dtype)
    found: dict[str, Any] = {}
    # On the CPU this is not needed: the oracle is trained twice, and a difference is an error.
    if context.device.type != "cpu":
        runs = list(runs)
        more = [reference.again(recipe, context, plan.parts, reduce_dtype) for _ in range(2)]
        different, found["nondeterminism"] = nondeterminism.measure(runs[0], more)
        runs += different
        if recipe.dtype in (torch.float32, torch.float64):
            bits = numerics.fewest_bits(context.device, recipe.dtype)
            for run in runs:
                run.products = 2.0 ** -(bits + 1)
    found["places"] = [run.save(plan.spool) for run in runs]
    return found, []


def alive(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Say why the scenario is no evidence, if so, by the oracle and the reference runs."""
    asked = Judging.from_json(args)
    plan = asked.training
    scenario = scenarios.get(plan.scenario)
    tolerance = _tolerance(plan, asked.reference)
    facts: dict[str, Any] = {}
    if scenario.exempt:
        facts["exempt"] = [f"{kind}: {why}" for kind, why in scenario.exempt.items()]
    apart = devices.get(plan.device).sums_apart
    if apart is not None:
        facts["sums_apart"] = apart
    shows = evidence.one_rank_shows_below(tolerance)
    if shows is not None:
        facts["one_rank_shows_below"] = shows
    wrong = evidence.wrong_in_one_process(tolerance)
    return {"faults": evidence.faults(scenario, tolerance), "wrong": wrong, "facts": facts}, []


def judge(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Judge a case by the stored trajectories; a large one is read tensor by tensor."""
    asked = Judging.from_json(args)
    plan = asked.training
    scenario = scenarios.get(plan.scenario)
    who = [one for world in participation.of(scenario, plan.worlds) for one in world]
    ranks = [] if asked.ranks is None else _stored(asked.ranks)
    tolerance = _tolerance(plan, asked.reference)
    apart = devices.get(plan.device).sums_apart is not None
    strategy = strategies.load()[plan.strategy]
    found = verdict.judge(
        tolerance,
        ranks,
        scenario.exempt,
        who,
        sums_apart=apart,
        splits_rows=strategy.splits_rows,
        shows_state=all(strategy.phase(n).shows_state for n in range(len(plan.worlds))),
    )
    if not found.passed:
        coarsest = max(
            torch.finfo(getattr(torch, name)).eps / 2
            for name in (plan.dtype, plan.exchange.reduce_dtype, scenario.computes_in())
            if name is not None
        )
        found.diagnosis = diagnosis.diagnose(
            tolerance.oracle, ranks, found, tolerance.dtype, coarsest
        )
    return found.conclude().to_json(), []


def _stored(stored: Stored) -> list[Trajectory]:
    return [Trajectory.load(stored.path, place) for place in stored.places]


def _tolerance(plan: Training, stored: Stored) -> Tolerance:
    """The tolerance, from the stored oracle, parts and reference runs.

    Strategies and mutants share them, so a judging process caches the last few.
    """
    processes.keep_freed_memory()
    key = plan.reference
    if key not in _KNOWN:
        runs = _stored(stored)
        whole, *parts = runs[: 1 + plan.parts]
        rows, *others = runs[1 + plan.parts :]
        _KNOWN[key] = Tolerance(
            reference.Oracle(whole, parts, rows),
            others,
            plan.parts,
            getattr(torch, plan.dtype),
            _dtype(plan.exchange.reduce_dtype),
            _dtype(scenarios.get(plan.scenario).computes_in()),
            multiplies=plan.exchange.multiplies,
        )
        if len(_KNOWN) > MOST_KNOWN:
            del _KNOWN[next(iter(_KNOWN))]
    return _KNOWN[key]


#: The cache, by the key of a case's reference runs.
_KNOWN: dict[tuple[object, ...], Tolerance] = {}
MOST_KNOWN = 8


def _dtype(name: str | None) -> torch.dtype | None:
    return None if name is None else getattr(torch, name)


def _recipe_of(plan: Training) -> Recipe:
    return _recipe(plan.scenario, plan.dtype, plan.parts, plan.seed)


def _recipe(name: str, dtype: str, parts: int, seed: int) -> Recipe:
    scenario = scenarios.get(name)
    of = getattr(torch, dtype)
    return Recipe(scenario, of, of, scenario.rows_per_rank * parts, seed)


TASKS: dict[str, Task] = {
    task.__name__: task
    for task in (
        patience,
        describe,
        probe,
        examine,
        smoke,
        ask,
        parity,
        spell_training,
        consult,
        reference_runs,
        alive,
        judge,
        operate,
        spell,
        weigh,
    )
}
