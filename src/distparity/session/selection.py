"""The selections of cases: ``quick``, ``default``, ``full``, ``large``, ``order``, ``sizes``, ``generated``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distparity.core.case import Case
from distparity.core.torch_facts import OperationFacts, ScenarioFacts, StrategyFacts, TorchFacts
from distparity.drawing.grammar import is_drawn

__all__ = ["EVERY", "OPERATIONS", "SELECTIONS", "cases", "operations"]

#: Those that have operations and no scenarios.
OPERATIONS = ("sizes", "generated")
#: From the smallest to the largest, each includes the one before it; ``large`` has scenarios of its own,
#: and ``order`` strategies.
SELECTIONS = ("quick", "default", "full", "large", "order", *OPERATIONS)
#: In place of a selection: all that a case can be named from.
EVERY = "every"
#: The one scenario that variants run at every world size and in the quick selection: it calls a
#: submodule twice.
QUICK = "multiple_forward"


def cases(
    select: str,
    torch: TorchFacts,
    device: str,
    sizes: Sequence[int],
    scenarios: list[str] | None = None,
) -> list[Case]:
    """The cases of a selection on a device, at these world sizes, in a fixed order.

    Only those of ``scenarios``, unless that is None.
    """
    if select in OPERATIONS:
        return operations(select, torch, device, sizes, scenarios)
    heads = _heads(torch.scenarios)
    plainest = {name: _plainest(torch.scenarios, how) for name, how in torch.strategies.items()}
    found = [
        Case(scenario, strategy, size, dtype, device)
        for scenario, what in torch.scenarios.items()
        if scenarios is None or scenario in scenarios
        for strategy, how in torch.strategies.items()
        for size, dtype in _worlds(select, scenario, what, how, sizes)
        if select != "quick" or _quick(scenario, what, how, heads, plainest[strategy])
    ]
    if select in ("large", "order"):
        return found
    # Operations have sizes of their own.
    return found + operations(select, torch, device, sizes, scenarios)


def operations(
    select: str, torch: TorchFacts, device: str, sizes: Sequence[int], names: list[str] | None
) -> list[Case]:
    """The cases of operations, only of those in ``names`` unless that is None; the quick selection has one per operation."""
    found = []
    for name, what in torch.operations.items():
        if _has(select, what) and (names is None or name in names):
            own = [
                Case(name, way, size, dtype, device)
                for way, dtypes in what.ways.items()
                for size in _sizes(select, way, what, sizes)
                for dtype in dtypes
            ]
            found += own[:1] if select == "quick" else own
    return found


def _has(select: str, what: OperationFacts) -> bool:
    """Whether a selection has cases of an operation."""
    if select == "generated":
        return what.generated
    return select == EVERY or what.selection == (select if select in OPERATIONS else "")


def _sizes(select: str, way: str, what: OperationFacts, sizes: Sequence[int]) -> list[int]:
    """The world sizes at which an operation is called in a way."""
    sizes = [size for size in sizes if not what.worlds or size in what.worlds]
    if select == EVERY:
        return sizes
    if what.generated and select != "generated":
        # What torch gets wrong in them is known for pairs.
        return [size for size in sizes if size == 2]
    room = [size for size in sizes if size == 2 or 2 not in sizes or way not in what.pairs_only]
    most = what.default_ranks
    if select in ("full", *OPERATIONS) or most is None:
        return room
    # If only larger worlds are requested, use them.
    return [size for size in room if size <= most] or room


def _worlds(
    select: str, scenario: str, what: ScenarioFacts, how: StrategyFacts, sizes: Sequence[int]
) -> list[tuple[int, str]]:
    """World sizes and dtypes in which a strategy runs a scenario."""
    if how.tier == "drawn" and not is_drawn(scenario):
        return []
    if not how.needs.keys() <= set(what.features):
        # The strategy has nothing to do here, so the case would say nothing about torch or device.
        return []
    room = [size for size in sizes if _fits(how, size)]
    if (how.tier == "ordered") != (select == "order") and select != EVERY:
        return []
    if select == "order":
        fits = how.needs or (what.anchor and not what.slow)
        return [(size, what.dtypes[0]) for size in room[:1] if fits]
    if select == "large":
        core = what.large and how.tier == "core" and not how.needs
        return [(size, what.dtypes[0]) for size in room[:1] if core]
    if what.large and select != EVERY:
        return []
    if select not in ("full", EVERY):
        if what.slow or not _default(what, how):
            return []
        # One scenario is enough to show what a variant does differently in a larger world.
        if select == "quick" or not (how.tier == "core" or how.needs or scenario == QUICK):
            room = room[:1]
    every = select in ("full", EVERY) or (
        select == "default" and what.anchor and how.tier == "core"
    )
    dtypes = what.dtypes if every else what.dtypes[:1]
    return [(size, dtype) for size in room for dtype in dtypes]


def _default(what: ScenarioFacts, how: StrategyFacts) -> bool:
    """Whether a strategy runs a scenario in the default selection."""
    made_for = any(feature in what.features for feature in how.made_for)
    return bool(how.tier == "core" or how.needs or what.anchor or made_for)


def _quick(
    scenario: str,
    what: ScenarioFacts,
    how: StrategyFacts,
    heads: Mapping[str, str],
    plainest: str | None,
) -> bool:
    """Whether the case is in the smallest set that covers every strategy and every family."""
    if how.needs:
        return scenario == plainest
    if how.tier == "core":
        return what.anchor or heads[what.family] == scenario
    return scenario == QUICK


def _plainest(scenarios: Mapping[str, ScenarioFacts], how: StrategyFacts) -> str | None:
    """Of the scenarios with the features that a strategy needs, the one with the fewest others."""
    fit = [
        name
        for name, what in scenarios.items()
        if not what.large and how.needs.keys() <= set(what.features)
    ]
    return min(fit, key=lambda name: (len(scenarios[name].features), name), default=None)


def _heads(scenarios: Mapping[str, ScenarioFacts]) -> dict[str, str]:
    """The first scenario of every family."""
    found: dict[str, str] = {}
    for name, what in scenarios.items():
        if not (what.slow or what.large):
            found.setdefault(what.family, name)
    return found


def _fits(how: StrategyFacts, size: int) -> bool:
    """Whether a strategy is defined for this world size."""
    most = size if how.most_ranks is None else how.most_ranks
    return how.least_ranks <= size <= most and size % how.ranks_multiple_of == 0
