"""Deliberate faults: what the suite must see, or it proves nothing.

A mutant is a strategy made wrong in one way. It is put in at the collectives and at the strategy's
own methods, inside a rank, so that it works on every device, under every strategy to which it means
something, and with every torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distparity.mutants import catalogue
from distparity.mutants.base import Mutant
from distparity.mutants.inject import mutate

if TYPE_CHECKING:
    from distparity.scenarios import Scenario
    from distparity.strategies import Strategy

__all__ = ["Mutant", "applies", "catalogue", "load", "mutate"]


def load() -> dict[str, type[Mutant]]:
    """All mutants by name, in the order in which they stand in the catalogue."""
    return {kind.name: kind for kind in Mutant.__subclasses__()}


def applies(kind: type[Mutant], strategy: Strategy, scenario: Scenario) -> bool:
    """Whether the fault means something under a strategy, to a scenario."""
    return kind.sharded in (None, not strategy.replicates) and (
        kind.needs is None or kind.needs in scenario.features()
    )
