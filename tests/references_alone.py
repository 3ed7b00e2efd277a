"""Train the reference runs of every scenario where no function of torch.distributed can be called.

Prints as JSON what went wrong, by scenario: what called a function, and reload scenarios that do not end
to the bit where they end when one process saves and loads by torch's plain state dicts.
"""

from __future__ import annotations

import gc
import json
import sys
from types import FunctionType
from typing import Any

import torch
import torch._dynamo.variables.builder
import torch.distributed.checkpoint
from torch import nn

from distparity import devices, scenarios, strategies
from distparity.devices.context import RankContext
from distparity.scenarios import Scenario
from distparity.strategies.single import Reference, Single
from distparity.training import loop, reference

RANKS = 2
#: torch's own layers ask them (``BatchNorm``), and they tell of a process group and do nothing.
HARMLESS = ("is_available", "is_initialized", "WORLD", "default_pg")


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("a reference run uses torch.distributed")


def forbid() -> int:
    """Make every function and method of torch.distributed raise, under every name in every module."""
    count = 0
    for function in gc.get_objects():
        if (
            isinstance(function, FunctionType)
            and (function.__module__ or "").startswith("torch.distributed")
            and not function.__code__.co_freevars
            and function.__name__ not in HARMLESS
        ):
            function.__code__ = forbidden.__code__
            count += 1
    return count


class Reloading(Single):
    """One process that saves and loads what a model, an optimizer and torch's plain state dicts have."""

    def reload(
        self,
        old: tuple[nn.Module, torch.optim.Optimizer],
        new: tuple[nn.Module, torch.optim.Optimizer],
        by: str = "full",
    ) -> None:
        new[0].load_state_dict(old[0].state_dict())
        new[1].load_state_dict(old[1].state_dict())


def references(recipe: loop.Recipe, context: RankContext) -> None:
    precision = recipe.scenario.precision
    name = None if precision is None else precision.reduce_dtype
    travels = None if name is None else getattr(torch, name)
    reference.consult(recipe, context, RANKS)
    loop.train(recipe, Reference(travels, RANKS), context, parts=RANKS)


def same_after_reload(recipe: loop.Recipe, context: RankContext) -> bool:
    goes_on = loop.train(recipe, Single(), context).to_bytes()
    kept = loop._Run._reloads_after
    loop._Run._reloads_after = lambda run, number: run.scenario.reload_after == number  # type: ignore[method-assign, assignment]
    try:
        return loop.train(recipe, Reloading(), context).to_bytes() == goes_on
    finally:
        loop._Run._reloads_after = kept  # type: ignore[method-assign]


def look(scenario: Scenario, context: RankContext) -> str | None:
    dtype = getattr(torch, scenario.dtypes[0])
    recipe = loop.Recipe(scenario, dtype, dtype, scenario.rows_per_rank * RANKS, 1)
    try:
        references(recipe, context)
    except AssertionError as error:
        return str(error)
    if scenario.reload_after is not None and not same_after_reload(recipe, context):
        return "to reload is not the same as to go on"
    return None


def main() -> None:
    context = RankContext(0, 1, torch.device("cpu"), devices.get("cpu"))
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    # Large scenarios differ from others in their sizes only.
    every = {name: one for name, one in scenarios.load().items() if not one.large}
    strategies.load()
    count = forbid()
    for name, scenario in every.items():
        wrong = look(scenario, context)
        if wrong is not None:
            found[name] = wrong
    json.dump({"forbidden": count, "scenarios": len(every), "wrong": found}, sys.stdout)


if __name__ == "__main__":
    main()
